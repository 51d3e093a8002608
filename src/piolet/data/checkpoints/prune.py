"""Which checkpoints may go: all but the newest and the milestones, and nothing that is in doubt."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import storage_errors
from piolet.data.checkpoints.audit import DELETING, Audit, Checkpoint, named

QUIET_S = 3600.0
"""A torn checkpoint in which something changed within the last hour may be one that is being written."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A checkpoint, whether it goes, and why."""

    checkpoint: Checkpoint
    delete: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Keep the newest `keep` (at least 1) complete ones of a series, and those at multiples of `every` steps."""

    keep: int
    every: int | None = None


def choose(found: Audit, policy: Policy, now_s: float) -> tuple[Choice, ...]:
    """Choose what goes: complete ones that the policy does not keep, and torn ones that are quiet and surpassed.

    What something points to stays, and so does the newest complete one of each series.
    """
    return tuple(_choice(one, found, policy, now_s) for one in found.checkpoints)


def _choice(one: Checkpoint, found: Audit, policy: Policy, now_s: float) -> Choice:
    complete = _complete_steps(found, one.series)
    if one.path.name in found.named:
        return Choice(one, delete=False, reason="something points to it")
    if one.faults:
        return _torn(one, complete, now_s)
    if one.step in complete[: policy.keep]:
        return Choice(one, delete=False, reason=f"of the newest {policy.keep}" if policy.keep > 1 else "the newest")
    if policy.every and one.step % policy.every == 0:
        return Choice(one, delete=False, reason=f"milestone: a multiple of {policy.every}")
    return Choice(one, delete=True, reason="old")


def _complete_steps(found: Audit, series: str) -> list[int]:
    """Return the steps of the complete ones of a series, the newest first."""
    return sorted({one.step for one in found.checkpoints if one.series == series and not one.faults}, reverse=True)


def _torn(one: Checkpoint, complete: Sequence[int], now_s: float) -> Choice:
    if not complete or one.step >= complete[0]:
        return Choice(one, delete=False, reason="torn, but no newer one is complete")
    if one.changed_s > now_s - QUIET_S:
        return Choice(one, delete=False, reason="torn, but may be being written")
    return Choice(one, delete=True, reason="torn")


def apply(found: Audit, choices: Sequence[Choice]) -> Iterator[Choice]:
    """Delete what was chosen, the oldest first, and yield each when it is gone; first what a kill left half deleted.

    A checkpoint loses its name before its first file. One that something points to by now stays.
    """
    with storage_errors(found.directory, "delete"):
        for path in found.half_deleted:
            shutil.rmtree(path)
        for choice in choices:
            if choice.delete and choice.checkpoint.path.name not in named(found.directory):
                _delete(choice.checkpoint.path)
                yield choice


def _delete(path: Path) -> None:
    hidden = path.with_name(f".{path.name}{DELETING}")
    path.rename(hidden)
    shutil.rmtree(hidden)
