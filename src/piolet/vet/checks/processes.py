"""No process is stuck on the node, and nobody else's is left on its GPUs."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pynvml
from annotated_types import Ge, Gt

from piolet.core.nouns import Status
from piolet.tools import nvml
from piolet.vet import gpus
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.gpus import Gpus

PROC = Path("/proc")
_BETWEEN_LOOKS_S = 0.3
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD: some of them wait in state D by design
_STATES = {"Z": "a zombie", "D": "stuck in the kernel"}


@dataclass(frozen=True, slots=True)
class Parameters:
    """What may be there.

    `older_than_s`: processes that began less than so many seconds ago do not count. `max_zombies`, `max_stuck`: of the
    older ones. `gpus`: look at the owners of processes on the allocated GPUs; false where jobs share GPUs.
    """

    older_than_s: Annotated[float, Gt(0)] = 300.0
    max_zombies: Annotated[int, Ge(0)] = 0
    max_stuck: Annotated[int, Ge(0)] = 0
    gpus: bool = True


@dataclass(frozen=True, slots=True)
class Process:
    """A process of state Z or D; `start_s` is when it began, in seconds since boot."""

    pid: int
    name: str
    state: str
    start_s: float


@dataclass(frozen=True, slots=True)
class Stranger:
    """A process on one of our GPUs that is not ours; `uid` is None if it cannot be seen."""

    pid: int
    uid: int | None


_NO_GPUS: Gpus[tuple[Stranger, ...]] = Gpus(None, ())


@dataclass(frozen=True, slots=True)
class Observation:
    """Those that did not move between two looks, the strangers on each GPU, and the seconds since boot."""

    unmoved: tuple[Process, ...]
    gpus: Gpus[tuple[Stranger, ...]]
    uptime_s: float


def observe(parameters: Parameters, context: Context) -> Observation:
    """Look twice at all processes; one in state D counts if it has not run in between."""
    first = _look()
    found = gpus.observe(context, _strangers) if parameters.gpus else _NO_GPUS
    time.sleep(_BETWEEN_LOOKS_S)
    unmoved = tuple(process for process, switches in _look().items() if first.get(process) == switches)
    return Observation(unmoved, found, time.clock_gettime(time.CLOCK_BOOTTIME))


def judge(observation: Observation, parameters: Parameters) -> Judgement:
    """Fail on stuck processes, on zombies, then on strangers.

    The kernel does not tell how long a process has been in its state, so its own age stands for that.
    """
    for state, limit in (("D", parameters.max_stuck), ("Z", parameters.max_zombies)):
        old = [
            process
            for process in observation.unmoved
            if process.state == state and observation.uptime_s - process.start_s > parameters.older_than_s
        ]
        if len(old) > limit:
            named = ", ".join(f"{process.pid} ({process.name})" for process in old[:3])
            reason = f"{len(old)} processes are {_STATES[state]}, among them {named}"
            remedy = "look at the file systems and drivers that they wait for; tell the operators"
            return Judgement(Status.FAIL, reason, len(old), limit, "processes", remedy)
    return _on_gpus(observation.gpus) or Judgement(Status.PASS, "no process is stuck or left over")


def _on_gpus(found: Gpus[tuple[Stranger, ...]]) -> Judgement | None:
    """Judge strangers; without GPUs of ours there is nothing to say."""
    if not found.expected:
        return None
    for name, strangers in found.answering:
        if strangers:
            who = "another user" if strangers[0].uid is None else f"user {strangers[0].uid}"
            reason = f"{name}: process {strangers[0].pid} of {who} is left on it"
            remedy = "tell the operators: the epilog of an earlier job has not ended it"
            return Judgement(Status.FAIL, reason, len(strangers), 0, "processes", remedy)
    return gpus.nothing_to_judge(found) or gpus.not_supported(found, "its processes", "set `gpus: false`")


def _look() -> dict[Process, str]:
    """Return the processes in state Z or D, and how often each has been switched to: what grows when one runs."""
    found = {}
    for directory in PROC.glob("[0-9]*"):
        try:
            process = parse_stat((directory / "stat").read_text(encoding="utf-8", errors="replace"))
            if process:
                found[process] = _switches((directory / "status").read_text(encoding="utf-8", errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
    return found


def parse_stat(text: str) -> Process | None:
    """Parse /proc/PID/stat, proc(5): a user's process in state Z or D, else None. Names may hold anything."""
    before, _, after = text.rpartition(")")
    pid, _, name = before.partition(" (")
    fields = after.split()
    state, flags, start_ticks = fields[0], int(fields[6]), int(fields[19])
    if state not in _STATES or flags & _KERNEL_THREAD:
        return None
    return Process(int(pid), name, state, start_ticks / os.sysconf("SC_CLK_TCK"))


def _switches(status: str) -> str:
    return "".join(line for line in status.splitlines() if "ctxt_switches" in line)


def _strangers(handle: Any) -> tuple[Stranger, ...] | None:  # noqa: ANN401 - opaque
    """Return others' processes on a GPU; one that is not in /proc is hidden if the GPU still lists it afterwards."""
    listed = _listed(handle)
    if listed is None:
        return None
    owners = {pid: _owner(pid) for pid in listed}
    others = {pid: uid for pid, uid in owners.items() if uid != os.getuid()}
    still = _listed(handle) if others else ()
    return tuple(Stranger(pid, uid) for pid, uid in others.items() if still is None or pid in still)


def _listed(handle: Any) -> tuple[int, ...] | None:  # noqa: ANN401 - opaque
    processes = nvml.supported(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)
    return None if processes is None else tuple(process.pid for process in processes)


def _owner(pid: int) -> int | None:
    try:
        return (PROC / str(pid)).stat().st_uid
    except OSError:
        return None


CHECK = Check(
    name="processes",
    version=1,
    summary="no process is stuck, and nobody else's is left on the GPUs",
    source="300 s is what vetting scripts of large sites use: the kernel itself complains after 120 s in state D",
    parameters=Parameters,
    observe=observe,
    judge=judge,
)
