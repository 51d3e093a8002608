"""The accounting of a lab: MariaDB in its directory, slurmdbd before it, the cluster's entry in it."""

from __future__ import annotations

import shutil
from pathlib import Path

from piolet.core.errors import storage_errors
from piolet.core.run import Runner, SystemRunner
from piolet.lab.cluster import LOOPBACK, Lab
from piolet.lab.daemons import Daemon, answers, start, wait_until

_USER = "mysql"  # Debian's package makes it
_CREATE = "CREATE DATABASE IF NOT EXISTS slurm"
_TIMEOUT_S = 60.0


def ensure_accounting(lab: Lab, running: set[str]) -> list[str]:
    """Start MariaDB and slurmdbd unless their labels are `running`; return the labels of what was started.

    Raises:
        ToolError, ToolTimeout, PioletError: MariaDB or slurmdbd does not come up.
    """
    data = lab.directory / "mysql"
    socket = data / "socket"
    started = []
    if "mariadbd" not in running:
        _install(data)
        mariadbd = _mariadbd(lab, data)
        start(lab, [mariadbd])
        started.append(mariadbd.label)
        client = ["mariadb", "--no-defaults", f"--socket={socket}", "--execute"]
        runner = SystemRunner()
        wait_until(lambda: runner.run([*client, "SELECT 1"], timeout=_TIMEOUT_S, ok=None).rc == 0, lab, mariadbd)
        runner.run([*client, _CREATE], timeout=_TIMEOUT_S)
    if "slurmdbd" not in running:
        # Debian's libmariadb takes the socket of "localhost" from this variable.
        variables, log = {"MYSQL_UNIX_PORT": str(socket)}, lab.directory / "log" / "slurmdbd.log"
        slurmdbd = Daemon("slurmdbd", ("slurmdbd",), log, variables, port=lab.place.slurmdbd_port)
        start(lab, [slurmdbd])
        started.append(slurmdbd.label)
        wait_until(lambda: answers(LOOPBACK, lab.place.slurmdbd_port), lab, slurmdbd)
        _register(lab, SystemRunner(env=lab.environment()))
    return started


def _register(lab: Lab, runner: Runner) -> None:
    """Enter the cluster in the database, unless it is known there."""
    known = runner.run(["sacctmgr", "-nP", "list", "cluster", "format=cluster"], timeout=_TIMEOUT_S).stdout.split()
    if lab.name not in known:
        runner.run(["sacctmgr", "-i", "add", "cluster", lab.name], timeout=_TIMEOUT_S)


def _install(data: Path) -> None:
    """Make the database's own tables, all of them or none: a torn directory is made anew."""
    stamp = data / "installed"
    if stamp.exists():
        return
    with storage_errors(data, "prepare the accounting database"):
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(mode=0o700)
        shutil.chown(data, _USER)
    argv = ["mariadb-install-db", "--no-defaults", f"--user={_USER}", f"--datadir={data}", "--skip-test-db"]
    SystemRunner().run([*argv, "--auth-root-authentication-method=socket"], timeout=_TIMEOUT_S)
    with storage_errors(data, "prepare the accounting database"):
        stamp.touch()


def _mariadbd(lab: Lab, data: Path) -> Daemon:
    """Return the database server, reached through its socket only; durability is not worth its time in a lab."""
    log = lab.directory / "log" / "mariadbd.log"
    argv = [
        "setsid",
        "--fork",
        "mariadbd",
        "--no-defaults",
        f"--user={_USER}",
        f"--datadir={data}",
        f"--socket={data / 'socket'}",
        f"--pid-file={data / 'pid'}",
        "--skip-networking",
        "--innodb-buffer-pool-size=256M",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-lock-wait-timeout=900",
    ]
    return Daemon("mariadbd", tuple(argv), log)
