"""How long a training step took, from what the program reported: its own `step_time_s`, else the times of its steps.

The median of the middle of a run is what to look at; a wide p10 to p90 is the sign of stalls.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from piolet.logbook.reader import Reader

LEAST_STEPS = 10
"""With fewer step times their quantiles say nothing."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """Quantiles of the seconds of a step over `count` of them; `told` if the program said how long each took."""

    p10_s: float
    p50_s: float
    p90_s: float
    count: int
    told: bool


def step_time(reader: Reader) -> StepTime | None:
    """Return the step time of the job; None if the program reported too few steps."""
    told = reader.database.execute(
        "SELECT value FROM user WHERE name = 'step_time_s' AND value > 0 AND isfinite(value)"
    ).fetchall()
    if len(told) >= LEAST_STEPS:
        return _quantiles([float(value) for (value,) in told], told=True)
    reported = reader.database.execute(
        "SELECT step, min(time_ns) FROM user WHERE step IS NOT NULL AND coalesce(rank, 0) = 0 GROUP BY step ORDER BY 2"
    ).fetchall()
    times = between([(int(step), int(time_ns)) for step, time_ns in reported])
    return _quantiles(times, told=False) if len(times) >= LEAST_STEPS else None


def between(reported: Sequence[tuple[int, int]]) -> list[float]:
    """Return the seconds of a step between one report (step, time in ns) and the next; a restart counts for none."""
    return [
        (later_ns - before_ns) / 1e9 / (later - before)
        for (before, before_ns), (later, later_ns) in pairwise(reported)
        if later > before and later_ns > before_ns
    ]


def _quantiles(seconds: Sequence[float], *, told: bool) -> StepTime:
    cuts = statistics.quantiles(seconds, n=10, method="inclusive")
    return StepTime(cuts[0], statistics.median(seconds), cuts[8], len(seconds), told)
