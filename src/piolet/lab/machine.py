"""What a lab needs of this machine: root, Slurm's programs, and one change at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from piolet.core.errors import Refused, ToolMissing
from piolet.lab.spec import Network, Spec

_PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "srun": "slurm-client",
    "munged": "munge",
    "unshare": "util-linux",
    "hostname": "hostname",
    "ldconfig": "libc-bin",
}
_NETNS_PACKAGES = {"ip": "iproute2", "nsenter": "util-linux"}
_ACCOUNTING_PACKAGES = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "mariadb": "mariadb-client",
}
_LOCK = "/run"
_LOCK_WAIT_S = 120.0
_POLL_S = 0.05


def check(spec: Spec) -> None:
    """Raise Refused without root, and ToolMissing with the Debian packages to install."""
    require_root("starting a lab")
    wanted = dict(_PACKAGES)
    wanted |= _NETNS_PACKAGES if spec.network is Network.NETNS else {}
    wanted |= _ACCOUNTING_PACKAGES if spec.accounting else {}
    missing = [program for program in wanted if shutil.which(program, path=_search_path()) is None]
    if missing:
        packages = " ".join(sorted({wanted[program] for program in missing}))
        raise ToolMissing(missing[0], remedy=f"apt-get install --no-install-recommends {packages}")


def check_reachable(directory: Path) -> None:
    """Raise Refused unless every user may enter `directory`, or would once it is made: Slurm is for them."""
    for path in (directory, *directory.parents):
        if path.exists() and not path.stat().st_mode & stat.S_IXOTH:
            raise Refused(
                "ordinary users cannot enter the labs' directory",
                where=str(path),
                remedy=f"chmod o+x {path}, or give another lab.directory (PIOLET_LAB_DIRECTORY)",
            )


def require_root(doing: str) -> None:
    """Raise Refused unless this process is root, which namespaces, devices and daemons need."""
    if os.geteuid() != 0:
        raise Refused(
            f"{doing} needs root", where=f"user id {os.geteuid()}", remedy="run it as root, or use `piolet run --local`"
        )


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let one `up` or `down` of this machine work at a time; a kill lets go. Refused if it is never our turn.

    The lock is on a directory that is always there, so that it leaves nothing behind.
    """
    handle = os.open(_LOCK, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _take(handle)
        yield
    finally:
        os.close(handle)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Create files with `mask` in the block: root's own umask may hide them from the lab's users."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _take(handle: int) -> None:
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Refused(
                    "another `piolet lab up` or `down` is at work and does not end",
                    where="this machine",
                    remedy="wait for it, or end it and run this again",
                ) from None
            time.sleep(_POLL_S)
        else:
            return


def _search_path() -> str:
    return f"{os.environ.get('PATH') or os.defpath}:/usr/sbin:/sbin"
