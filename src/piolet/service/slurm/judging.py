"""What the attendant of a job does next: pure functions of what it has seen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from piolet.service.slurm.places import Attempt, Endpoint

MISSED_UNREADY, MISSED_DEAD = 3, 6
"""Probes in a row without an answer after which a replica gets no requests, and after which it is given up; as the
probes that are rendered for Kubernetes."""

SETTLED_BEATS = 3
"""Probes that a job must have answered before the one that it replaces goes."""

MOST_FAILURES = 3
"""Jobs in a row that end before they were ready; then the chain ends."""

MOST_LIFE_S = 365 * 86400.0
"""Seconds after which even a job without a time limit is followed by another."""


@dataclass(frozen=True, slots=True)
class Health:
    """What the probes say: how many were missed in a row, and whether requests may come, now and ever before."""

    missed: int = 0
    ready: bool = False
    ever: bool = False

    def after(self, *, answered: bool) -> Health:
        """Return the health after one more probe."""
        if answered:
            return Health(0, ready=True, ever=True)
        return Health(self.missed + 1, ready=self.ready and self.missed + 1 < MISSED_UNREADY, ever=self.ever)


class Next(StrEnum):
    """What to do: go on, let requests end and go, or give the engine up so that the successor begins."""

    SERVE = "serve"
    RETIRE = "retire"
    GIVE_UP = "give up"


def decided(health: Health, *, elapsed_s: float, startup_s: float, wanted: bool, heir: int | None) -> tuple[Next, str]:
    """Return what to do, and why. `heir` is the job that serves in this one's place, if one does."""
    if not wanted:
        return Next.RETIRE, "it is no longer wanted"
    if heir is not None:
        return Next.RETIRE, f"job {heir} serves in its place"
    if not health.ever and elapsed_s > startup_s:
        return Next.GIVE_UP, f"it did not answer within {startup_s:g} s"
    if health.ever and health.missed >= MISSED_DEAD:
        return Next.GIVE_UP, f"it has missed {health.missed} probes"
    return Next.SERVE, ""


def heir_of(attempt: Attempt, endpoints: Iterable[Endpoint]) -> int | None:
    """Return the newer job of the same replica that has answered for long enough to take the place of this one."""
    heirs = [
        (each.generation, each.job)
        for each in endpoints
        if each.replica == attempt.replica and each.beat >= SETTLED_BEATS
    ]
    newest = max(heirs, default=(0, 0))
    return newest[1] if newest > (attempt.generation, attempt.job) else None


def failures_before(generation: int, replica: int, attempts: Iterable[Attempt]) -> int:
    """Return how many jobs in a row, up to the newest that has ended, were never ready."""
    before = [each for each in attempts if (each.generation, each.replica) == (generation, replica)]
    newest = max(before, key=lambda each: each.job, default=None)
    return 0 if newest is None or newest.ready_ns is not None else newest.failures + 1


def begin_minutes(limit_s: float, overlap_s: float) -> int:
    """Return after how many minutes of a job its successor may begin; at least one, so that no two chase each other."""
    return max(1, int(min(limit_s - overlap_s, MOST_LIFE_S) // 60))


def expanded(word: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` as Kubernetes does: an unknown name stays, and ``$$`` is a dollar sign."""
    return re.sub(
        r"\$(?:\$|\(([A-Za-z0-9_.-]+)\))",
        lambda found: variables.get(found[1], found[0]) if found[1] else "$",
        word,
    )
