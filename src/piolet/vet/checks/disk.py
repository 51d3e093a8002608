"""Given directories have room left and can be written."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Le, MinLen

from piolet.core.nouns import Status
from piolet.vet.check import Check, Context, Judgement


@dataclass(frozen=True, slots=True)
class Parameters:
    """`paths`: directories of any file system; `below_used_fraction`: 0..1, of the space and of the inodes in use.

    `writable`: a file system that is mounted read-only fails, as one is after an error.
    """

    paths: Annotated[tuple[str, ...], MinLen(1)] = ("/tmp",)  # noqa: S108 - looked at, never written
    below_used_fraction: Annotated[float, Gt(0), Le(1)] = 0.85
    writable: bool = True


@dataclass(frozen=True, slots=True)
class Usage:
    """One path: fractions in use as df gives them, whether its mount is read-only, or why it does not answer."""

    path: str
    space: float = 0.0
    inodes: float = 0.0
    read_only: bool = False
    trouble: str = ""

    @property
    def worst(self) -> tuple[float, str]:
        """The scarcer of the two, and its name."""
        return max((self.space, "space"), (self.inodes, "inodes"))


def observe(parameters: Parameters, context: Context) -> tuple[Usage, ...]:  # noqa: ARG001 - the interface of checks
    """Ask each file system; one that hangs makes the check unknown, and `mounts` names it."""
    return tuple(_usage(path) for path in parameters.paths)


def judge(observation: tuple[Usage, ...], parameters: Parameters) -> Judgement:
    """Fail on a path that does not answer or is read-only, then on the fullest one."""
    for usage in observation:
        if usage.trouble or (usage.read_only and parameters.writable):
            trouble = usage.trouble or "mounted read-only"
            remedy = "look at the kernel log of the node for errors of this file system; tell the operators"
            return Judgement(Status.FAIL, f"{usage.path}: {trouble}", remedy=remedy)
    fullest = max(observation, key=lambda usage: usage.worst)
    used, what = fullest.worst
    status = Status.PASS if used < parameters.below_used_fraction else Status.FAIL
    remedy = "" if status is Status.PASS else "remove what earlier jobs have left there"
    reason = f"{fullest.path}: {used:.0%} of its {what} is in use"
    return Judgement(status, reason, round(used, 4), parameters.below_used_fraction, "fraction", remedy)


def _usage(path: str) -> Usage:
    try:
        found = os.statvfs(path)
    except PermissionError:
        raise  # nothing is known then: the check is unknown
    except OSError as error:
        return Usage(path, trouble=error.strerror or errno.errorcode.get(error.errno or 0, "error"))
    return Usage(
        path,
        space=_fraction(found.f_blocks - found.f_bfree, found.f_bavail),
        inodes=_fraction(found.f_files - found.f_ffree, found.f_favail),
        read_only=bool(found.f_flag & os.ST_RDONLY),
    )


def _fraction(used: int, available: int) -> float:
    """Return what is in use of what users may have; some file systems count no inodes: then nothing is."""
    return used / (used + available) if used + available > 0 else 0.0


CHECK = Check(
    name="disk",
    version=1,
    summary="directories have room left and can be written",
    source="85 % is the first alarm of most sites' monitoring; a file system goes read-only after an error (ext4(5))",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    light=True,
)
