"""The processes of a job on this node: who they are, where they listen, which torch they have loaded."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import UsageError
from piolet.tools import sockets
from piolet.tools.sockets import Listener

PROC = Path("/proc")
_SLURM = frozenset({"salloc", "sattach", "srun", "slurmstepd"})
"""They listen for slurmd and one another, and ask who is there."""

_TORCH = re.compile(r"(?P<directory>/\S*/torch)/lib/libtorch(?:_cpu|_python)?\.so")
_VERSION = re.compile(r"__version__\s*=\s*['\"](?P<version>[^'\"]+)")


@dataclass(frozen=True, slots=True)
class Process:
    """A process: its listeners, the torch that it has loaded (empty: none), and whether its network is another one.

    `meeting_port` is where the ranks of its job meet (MASTER_PORT).
    """

    pid: int
    name: str
    listeners: tuple[Listener, ...] = ()
    torch: str = ""
    apart: bool = False
    meeting_port: int | None = None


def of_job(job: str, node: str) -> frozenset[int]:
    """Return this user's processes that belong to a job of Slurm: by its control group or by their environment.

    Those of another node are none: the nodes of a lab share one machine.
    """
    group = re.compile(rf"/job_{re.escape(job)}(?:/|$)", re.MULTILINE)
    found: set[int] = set()
    for pid in _own():
        with suppress(OSError):
            environ = _environ(PROC / str(pid))
            ours = environ.get("SLURM_JOB_ID") == job
            if ours or group.search((PROC / str(pid) / "cgroup").read_text(encoding="utf-8")):
                found.update({pid} if environ.get("SLURMD_NODENAME", node) == node else ())
    return frozenset(found)


def below(pid: int) -> frozenset[int]:
    """Return a process of this user and all its descendants; UsageError if there is none."""
    if pid not in set(_own()):
        raise UsageError("no such process of yours", where=f"--pid {pid}", remedy="see ps -u $USER")
    children: dict[int, list[int]] = {}
    for each in _own():
        with suppress(OSError):
            stat = (PROC / str(each) / "stat").read_text(encoding="utf-8", errors="replace")
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(each)
    found, pending = {pid}, [pid]
    while pending:
        new = [each for each in children.get(pending.pop(), ()) if each not in found]
        found.update(new)
        pending += new
    return frozenset(found)


def _own() -> Iterator[int]:
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if entry.stat().st_uid == os.geteuid():
                    yield int(entry.name)


def look(pids: Collection[int]) -> tuple[Process, ...]:
    """Return what each process has open, but for those that end meanwhile, this one, and Slurm's own."""
    here = (PROC / "self/ns/net").stat().st_ino
    found = []
    for pid in sorted(set(pids) - {os.getpid()}):
        with suppress(OSError):
            directory = PROC / str(pid)
            if (directory / "exe").readlink().name in _SLURM:
                continue
            name = (directory / "comm").read_text(encoding="utf-8", errors="replace").strip()
            held = set(sockets.inodes(directory))
            listening = tuple(each for each in sockets.listeners(directory) if each.inode in held) if held else ()
            apart = (directory / "ns/net").stat().st_ino != here
            found.append(Process(pid, name, listening, loaded_torch(directory), apart, _meeting_port(directory)))
    return tuple(found)


def _environ(process: Path) -> dict[str, str]:
    """Return the environment with which a process began."""
    pairs = (process / "environ").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def _meeting_port(process: Path) -> int | None:
    given = _environ(process).get("MASTER_PORT", "")
    return int(given) if given.isdecimal() else None


def loaded_torch(process: Path) -> str:
    """Return the version of the torch whose library a process has mapped, read from its files; empty if none."""
    with suppress(OSError):
        match = _TORCH.search((process / "maps").read_text(encoding="utf-8", errors="replace"))
        if match:
            text = (process / "root" / match["directory"].lstrip("/") / "version.py").read_text(encoding="utf-8")
            found = _VERSION.search(text)
            return found["version"] if found else ""
    return ""
