"""File systems are mounted and answer. A hung one is found by a process that may hang instead of the node's answer."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from piolet.core.nouns import Status
from piolet.tools import mountinfo
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.isolation import Task, run_isolated

# fmt: off
NETWORK_TYPES = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "cvmfs", "fuse.ceph", "fuse.cvmfs2", "fuse.daos",
    "fuse.glusterfs", "fuse.juicefs", "fuse.mountpoint-s3", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "gfs2",
    "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "virtiofs",
    "wekafs",
})
# fmt: on
"""Types of network and parallel file systems, as mountinfo names them."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """`paths`: mount points that must be there; none: every network file system that the node has mounted.

    `answer_s`: seconds that each may take to answer.
    """

    paths: tuple[str, ...] = ()
    answer_s: Annotated[float, Gt(0)] = 5.0


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount point, and its trouble: empty if it answered in time."""

    path: str
    trouble: str = ""


def observe(parameters: Parameters, context: Context) -> tuple[Mount, ...]:  # noqa: ARG001 - the interface of checks
    """Ask each file system for its free space, all at once, each in a process of its own."""
    mounted = mountinfo.mounted()
    wanted = [os.path.normpath(path) for path in parameters.paths]  # which does not look at it: it may hang
    paths = wanted or sorted({mount.path for mount in mounted if mount.kind in NETWORK_TYPES})
    there = {mount.path for mount in mounted}
    tasks = [Task(path, _Statvfs(path, lenient=not wanted), parameters.answer_s) for path in paths if path in there]
    outcomes = {outcome.name: outcome for outcome in run_isolated(tasks)}
    return tuple(
        Mount(path, (outcomes[path].error or outcomes[path].text) if path in outcomes else "nothing is mounted there")
        for path in paths
    )


def judge(observation: tuple[Mount, ...], parameters: Parameters) -> Judgement:  # noqa: ARG001 - the interface of checks
    """Fail on any file system that is missing, refuses or is silent."""
    troubled = [mount for mount in observation if mount.trouble]
    count = len(observation)
    if not troubled:
        said = f"{count} file systems answer" if count else "no network file system is mounted here"
        return Judgement(Status.PASS, said, count, count, "file systems")
    reason = "; ".join(f"{mount.path}: {mount.trouble}" for mount in troubled)
    remedy = "look at this mount and its servers on the node; tell the operators"
    return Judgement(Status.FAIL, reason, count - len(troubled), count, "file systems", remedy)


@dataclass(frozen=True, slots=True)
class _Statvfs:
    """Ask a file system; return what is wrong, or nothing. Lenient: those of other users (FUSE) may refuse us."""

    path: str
    lenient: bool

    def __call__(self) -> str:
        try:
            os.statvfs(self.path)
        except OSError as error:
            if self.lenient and error.errno in (errno.EACCES, errno.EPERM):
                return ""
            return error.strerror or str(error)
        return ""


CHECK = Check(
    name="mounts",
    version=1,
    summary="file systems are mounted and answer",
    source="such a call takes milliseconds; 5 s is far above that of a busy parallel file system",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    light=True,
)
