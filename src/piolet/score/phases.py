"""The phases of a job, found by change point in the saturation of its GPUs: pure functions.

Bottom-up segmentation (Keogh, ICDM'01): neighbours that differ least are merged first, until the next merge would hide
a change that noise does not explain. Dips that belong to every iteration are filled before, so that no step is a phase.
"""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

MOST_BINS = 3600
LEAST_S = 5.0
"""A change that is over sooner is no phase."""

NOISE_FLOOR = 0.02
"""Standard deviation of a saturation below which nobody would call a difference one."""

PENALTY = 4.0
"""How many times the noise's own cost a change must be worth; with log(bins), as in the Bayesian criterion."""

PERSISTENT_S = 30.0
"""Being somewhat slower counts only when it lasts this long; a stop counts at once."""

SHIFT = 0.10
"""The least change of a level that counts (FALCON)."""

LOW = 0.5
"""A phase below this share of the job's steady level is not steady state."""

FEW_BINS = 4
"""Samples of an iteration this short catch its dips by chance: two iterations are looked at together."""

_MAD = 0.6745
"""Median absolute deviation of a normal distribution, in standard deviations."""


class Kind(StrEnum):
    """What a phase is, as far as the saturation alone tells."""

    START_UP = "start-up"
    STEADY = "steady state"
    SLOWER = "slower"
    LOW = "low"
    TAIL = "tail"


@dataclass(frozen=True, slots=True)
class Stretch:
    """One kind of activity, from and to in seconds since the start."""

    kind: Kind
    from_s: float
    to_s: float


@dataclass(slots=True)
class _Run:
    """Bins that belong together: where they begin, how many, the sum of their saturations; and the neighbours."""

    first: int
    count: int
    total: float
    before: _Run | None = None
    after: _Run | None = None
    gone: bool = False

    @property
    def level(self) -> float:
        """The mean saturation."""
        return self.total / self.count

    def cost(self, other: _Run) -> float:
        """Return what merging costs: the squared error that it adds (Ward)."""
        return (self.level - other.level) ** 2 * self.count * other.count / (self.count + other.count)

    def shift(self, other: _Run) -> float:
        """Return how much two levels differ, as a share of the higher; 0 where both are next to nothing."""
        highest = max(self.level, other.level)
        return abs(self.level - other.level) / highest if highest > NOISE_FLOOR else 0.0

    def absorb(self, other: _Run) -> None:
        """Take in the run that follows."""
        self.count += other.count
        self.total += other.total
        self.after, other.gone = other.after, True
        if self.after:
            self.after.before = self


def stretches(
    times_s: Sequence[float],
    saturation: Sequence[float],
    *,
    end_s: float,
    startup_s: float = 0.0,
    bin_s: float = 1.0,
    period_s: float = 0.0,
) -> list[Stretch]:
    """Return the phases from 0 to `end_s`, in order and without holes; none without samples after start-up.

    `times_s` ascend, one a `bin_s`; `saturation` is the mean over the GPUs, 0..1. `startup_s` is where start-up ends,
    and `period_s` the time of an iteration, if they are known.
    """
    later = [(time_s, value) for time_s, value in zip(times_s, saturation, strict=True) if time_s >= startup_s]
    if not later:
        return []
    width_s = max(bin_s, (end_s - startup_s) / MOST_BINS)
    bins = _binned(later, startup_s, width_s)
    values = filled([value for _, value in bins], period_s / width_s)
    runs = _segmented(values, width_s)
    edges = [startup_s, *(bins[run.first][0] for run in runs[1:]), end_s]
    found = [Stretch(kind, *span) for kind, span in zip(_kinds(runs), pairwise(edges), strict=True)]
    first = [Stretch(Kind.START_UP, 0.0, startup_s)] if startup_s else []
    return [*first, *_joined(found)]


def _binned(samples: Sequence[tuple[float, float]], from_s: float, width_s: float) -> list[tuple[float, float]]:
    """Return (start, mean) of each bin of `width_s` that has samples."""
    bins: dict[int, list[float]] = {}
    for time_s, value in samples:
        bins.setdefault(int((time_s - from_s) / width_s), []).append(value)
    return [(from_s + number * width_s, statistics.fmean(values)) for number, values in bins.items()]


def filled(values: Sequence[float], period: float) -> list[float]:
    """Fill the dips that every iteration of `period` bins has (a morphological closing); edges of others stay exact."""
    deciles = statistics.quantiles(values, n=10) if period > 1 and len(values) > 1 else []
    if not deciles:
        return list(values)
    middle = (deciles[0] + deciles[-1]) / 2
    dip = period * min(sum(value < middle for value in values) / len(values), 0.9)
    width = math.ceil(dip if period > FEW_BINS else 2 * period) + 2
    highest = [max(values[at : at + width]) for at in range(len(values))]
    return [min(highest[max(0, at - width + 1) : at + 1]) for at in range(len(values))]


def _segmented(values: Sequence[float], width_s: float) -> list[_Run]:
    runs = [_Run(position, 1, value) for position, value in enumerate(values)]
    for before, after in pairwise(runs):
        before.after, after.before = after, before
    noise = PENALTY * math.log(len(values) + 1) * _variance(values)
    _merge(runs, lambda one, two: cost if (cost := one.cost(two)) < noise else None)
    _merge(runs, lambda one, two: one.cost(two) if min(one.count, two.count) * width_s < LEAST_S else None)
    _merge(runs, lambda one, two: _shift(one, two, width_s))
    return [run for run in runs if not run.gone]


def _shift(one: _Run, two: _Run, width_s: float) -> float | None:
    """The change of level from one run to the next, None if it counts: large, or persistent."""
    brief = min(one.count, two.count) * width_s < PERSISTENT_S
    shift = one.shift(two)
    return shift if shift < (LOW if brief else SHIFT) else None


def _merge(runs: Sequence[_Run], price: Callable[[_Run, _Run], float | None]) -> None:
    """Merge neighbours in place, the cheapest first, until no pair has a price; a run lives on as its first half."""
    heap: list[tuple[float, int, int, int]] = []

    def offer(one: _Run | None, two: _Run | None) -> None:
        if one and two and (cost := price(one, two)) is not None:
            heapq.heappush(heap, (cost, one.first, one.count, two.count))

    for run in runs:
        if not run.gone:
            offer(run, run.after)
    while heap:
        _, first, count, other_count = heapq.heappop(heap)
        one, two = runs[first], runs[first].after
        if one.gone or two is None or (one.count, two.count) != (count, other_count):
            continue
        one.absorb(two)
        offer(one.before, one)
        offer(one, one.after)


def _variance(values: Sequence[float]) -> float:
    """The variance of a bin, from differences of neighbours, which changes of level hardly touch."""
    steps = [abs(after - before) for before, after in pairwise(values)]
    deviation = statistics.median(steps) / _MAD if steps else 0.0
    return max(deviation**2 / 2, NOISE_FLOOR**2)


def _kinds(runs: Sequence[_Run]) -> list[Kind]:
    steady = _upper_quartile(runs)
    kinds = [
        Kind.LOW if run.level < LOW * steady else Kind.SLOWER if run.level < (1 - SHIFT) * steady else Kind.STEADY
        for run in runs
    ]
    return [*kinds[:-1], Kind.TAIL if kinds[-1] is Kind.LOW and len(kinds) > 1 else kinds[-1]]


def _upper_quartile(runs: Sequence[_Run]) -> float:
    """The level that a quarter of the time is at or above."""
    left = 0.25 * sum(run.count for run in runs)
    for run in sorted(runs, key=lambda run: -run.level):
        left -= run.count
        if left <= 0:
            return run.level
    return 0.0


def _joined(found: Sequence[Stretch]) -> list[Stretch]:
    """Join neighbours of one kind."""
    joined: list[Stretch] = []
    for each in found:
        if joined and joined[-1].kind is each.kind:
            joined.append(Stretch(each.kind, joined.pop().from_s, each.to_s))
        else:
            joined.append(each)
    return joined
