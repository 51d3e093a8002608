"""Which processes belong to a lab, found in /proc and never by name.

A process is a lab's if its environment carries the lab's marker (the daemons), if it sees one of the lab's node
directories as /run/piolet-node (what runs on a node), or if it shares a node's UTS namespace with such a process or
descends from one (what left the node's mounts, such as a container's file-system server). That needs no record of
process ids, so it holds after a kill at any moment, and no id is ever taken for the process that had it before.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import PioletError

MARKER = "PIOLET_LAB"
DAEMON_MARKER = "PIOLET_LAB_DAEMON"
NODE_MOUNT = Path("/run/piolet-node")
_PROC = Path("/proc")
_STEP_DAEMON = "slurmstepd"
_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Process:
    """A live process; `started` is in clock ticks since boot and, with `pid`, names it for ever."""

    pid: int
    parent: int
    started: int
    name: str
    environment: Mapping[str, str]
    uts: str
    node_mount: tuple[int, int] | None


def daemons(directory: Path) -> dict[str, Process]:
    """Return the live daemons of the lab in `directory` by label (slurmctld, slurmd@node1, ...)."""
    marked = [
        process
        for process in _processes()
        if process.environment.get(MARKER) == str(directory) and DAEMON_MARKER in process.environment
    ]
    # The oldest of a label is the daemon: its passing children carry the marker too.
    marked.sort(key=lambda process: process.started, reverse=True)
    return {process.environment[DAEMON_MARKER]: process for process in marked if process.name != _STEP_DAEMON}


def step_daemons(directory: Path) -> dict[str, Process]:
    """Return, for each node of the lab that runs a step, one live slurmstepd (whose title overwrites its marker)."""
    nodes = {_identity(path): path.name for path in directory.glob("nodes/*")}
    found = (process for process in _processes() if process.name == _STEP_DAEMON)
    return {nodes[process.node_mount]: process for process in found if process.node_mount in nodes}


def members(directory: Path) -> list[Process]:
    """Return every live process of the lab in `directory`, without this process and its ancestors."""
    mounts = {_identity(path) for path in directory.glob("nodes/*")} - {None}
    everything = {process.pid: process for process in _processes()}
    spared = set(_ancestry(os.getpid(), everything))
    host_uts = {_link("1/ns/uts"), _link("self/ns/uts"), ""}
    own = {
        pid
        for pid, process in everything.items()
        if process.environment.get(MARKER) == str(directory) or process.node_mount in mounts
    }
    node_uts = {everything[pid].uts for pid in own} - host_uts
    own |= {pid for pid, process in everything.items() if process.uts in node_uts}
    own |= {pid for pid in everything if own.intersection(_ancestry(pid, everything))}
    return [everything[pid] for pid in sorted(own - spared)]


def end_members(directory: Path, timeout_s: float) -> None:
    """Kill every process of the lab in `directory` and wait until none is left.

    They are killed, not asked: nothing of a lab outlives it, and some daemons ignore SIGTERM.

    Raises:
        PioletError: some are still there after `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while left := members(directory):
        for process in left:
            _kill(process)
        if time.monotonic() > deadline:
            listed = ", ".join(f"{process.pid} ({process.name})" for process in left)
            raise PioletError(
                f"processes of the lab do not die: {listed}",
                where=str(directory),
                remedy="they hang in the kernel, often on a dead mount; free that and run `piolet lab down` again",
            )
        time.sleep(_POLL_S)


def node_mount_in_use() -> bool:
    """Tell whether any process of this machine has something mounted on /run/piolet-node."""
    plain = _identity(NODE_MOUNT)
    return any(process.node_mount not in {plain, None} for process in _processes())


def _kill(process: Process) -> None:
    """Send SIGKILL through a pidfd, opened before the check that it is still the same process."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        now = _read(process.pid)
        if now and now.started == process.started:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended by itself in between
    finally:
        os.close(handle)


def _processes() -> Iterator[Process]:
    for name in os.listdir(_PROC):  # noqa: PTH208 - names are all that is wanted of a large directory
        if name.isdigit() and (process := _read(int(name))):
            yield process


def _read(pid: int) -> Process | None:
    """Return process `pid`, None if it is gone or a zombie. What this user may not see is empty."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # proc(5): "pid (name) state ppid ..."; the name may hold anything, so the rest is read after the last bracket.
    name = stat[stat.index("(") + 1 : stat.rindex(")")]
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    return Process(
        pid=pid,
        parent=int(fields[1]),
        started=int(fields[19]),
        name=name,
        environment=_environment(pid),
        uts=_link(f"{pid}/ns/uts"),
        node_mount=_identity(_PROC / f"{pid}/root{NODE_MOUNT}"),
    )


def _environment(pid: int) -> dict[str, str]:
    try:
        content = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    pairs = (entry.decode("utf-8", "surrogateescape").partition("=") for entry in content.split(b"\0"))
    return {name: value for name, _, value in pairs if name in {MARKER, DAEMON_MARKER}}


def _link(path: str) -> str:
    try:
        return str((_PROC / path).readlink())
    except OSError:
        return ""


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _ancestry(pid: int, everything: Mapping[int, Process]) -> Iterator[int]:
    """Yield `pid` and its ancestors."""
    while pid in everything:
        yield pid
        pid = everything[pid].parent
