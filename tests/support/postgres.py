"""Debian's PostgreSQL: a cluster in a directory of its own, on a free port, stopped and started at will."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SETTINGS = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\n"


def program(name: str) -> str:
    """Debian keeps the server's programs by version, away from PATH."""
    found = shutil.which(name) or next(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    assert found, f"PostgreSQL's {name} is not installed: scripts/setup test"
    return found


@dataclass(frozen=True, slots=True)
class Postgres:
    """A server for user `fleet`, whom it trusts."""

    directory: Path
    port: int

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://fleet@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        # pg_ctl's server holds on to what it is given: not the pipes of the tests
        log = str(self.directory / "log")
        self._run(program("pg_ctl"), "-D", str(self.directory / "data"), "-l", log, "-w", "-t", "120", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run(program("pg_ctl"), "-D", str(self.directory / "data"), "-w", "-m", mode, "stop")

    def new(self, name: str) -> str:
        """Make a database and return its URL."""
        import psycopg  # noqa: PLC0415 - only here

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def _run(self, *argv: str) -> None:
        subprocess.run(_as_user(argv), check=True, stdout=subprocess.DEVNULL, timeout=180, cwd=self.directory)


@contextmanager
def server() -> Iterator[Postgres]:
    """Make a cluster in a directory of its own, and run it."""
    with socket.socket() as probe, tempfile.TemporaryDirectory(prefix="postgres-") as directory:
        probe.bind(("127.0.0.1", 0))
        made = Postgres(Path(directory), probe.getsockname()[1])
        probe.close()
        if os.geteuid() == 0:
            os.chown(directory, pwd.getpwnam("postgres").pw_uid, -1)
        yield from _running(made)


def _running(made: Postgres) -> Iterator[Postgres]:
    made._run(program("initdb"), "-D", str(made.directory / "data"), "-U", "fleet", "-A", "trust", "--no-sync")
    with (made.directory / "data/postgresql.conf").open("a") as conf:
        conf.write(f"{SETTINGS}port = {made.port}\n")
    made.start()
    try:
        yield made
    finally:
        made.stop()


def _as_user(argv: tuple[str, ...]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--", *argv] if os.geteuid() == 0 else list(argv)
