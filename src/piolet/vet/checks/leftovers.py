"""No control group of a job that is over is left on the node, and none of another job where nodes are not shared."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from piolet.core.nouns import Status
from piolet.vet.check import Check, Context, Judgement

CGROUPS = Path("/sys/fs/cgroup")
_PATTERNS = ("system.slice/*slurmstepd.scope/job_*", "slurm*/job_*", "*/slurm*/uid_*/job_*")
"""Where Slurm's plugins of cgroup v2 and v1 keep jobs; a node of several slurmds has a name before."""

_JOB = re.compile(r"job_(\d+)")
_REMEDY = "tell the operators: slurmd has not cleaned up after that job"


@dataclass(frozen=True, slots=True)
class Parameters:
    """`older_than_s`: an empty group counts from this age on. `shared`: other jobs may run on the node too."""

    older_than_s: Annotated[float, Ge(0)] = 300.0
    shared: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """The group of another job than ours: its number, its processes with those below, and its age in seconds."""

    job: str
    processes: int
    age_s: float


def observe(parameters: Parameters, context: Context) -> tuple[Group, ...]:  # noqa: ARG001 - the interface of checks
    """Read the groups of other jobs."""
    return groups(CGROUPS, context.environ.get("SLURM_JOB_ID", ""), time.time())


def groups(root: Path, own_job: str, now_s: float) -> tuple[Group, ...]:
    """Return the groups of jobs below `root` but our own; those that end meanwhile are left out."""
    found: dict[str, Group] = {}
    for directory in {path for pattern in _PATTERNS for path in root.glob(pattern)}:
        match = _JOB.fullmatch(directory.name)
        if match is None or match[1] == own_job:
            continue
        try:
            group = Group(match[1], _processes(directory), now_s - directory.stat().st_mtime)
        except OSError:
            continue
        if match[1] not in found or group.processes > found[match[1]].processes:
            found[match[1]] = group
    return tuple(found[job] for job in sorted(found, key=int))


def _processes(directory: Path) -> int:
    return sum(len(file.read_text(encoding="ascii").split()) for file in directory.rglob("cgroup.procs"))


def judge(observation: tuple[Group, ...], parameters: Parameters) -> Judgement:
    """Fail on empty groups of some age and, where nodes are not shared, on another job's processes."""
    empty = [each for each in observation if not each.processes and each.age_s > parameters.older_than_s]
    if empty:
        reason = f"the control group of job {empty[0].job} is left, empty for {empty[0].age_s:.0f} s"
        return Judgement(Status.FAIL, reason, len(empty), 0, "groups", _REMEDY)
    others = [each for each in observation if each.processes]
    if others and not parameters.shared:
        reason = f"{others[0].processes} processes of job {others[0].job} are on this node"
        return Judgement(Status.FAIL, reason, len(others), 0, "jobs", _REMEDY)
    return Judgement(Status.PASS, "no control group is left over", 0, 0, "groups")


CHECK = Check(
    name="leftovers",
    version=1,
    summary="no control group of a job that is over is left",
    source="slurmd removes a job's groups as its last process ends; 300 s is when sites call a process stuck",
    parameters=Parameters,
    observe=observe,
    judge=judge,
)
