"""How often the activity of the GPUs repeats: the time of an iteration where no program tells it.

Autocorrelation, after FALCON (NSDI'25), which finds iterations in network counters that way. What repeats faster than
two samples cannot be told from something slower, as a wheel on film: a period is a hint, and says how sure it is.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

WINDOW = 512
"""Samples that are looked at together; of a long job several such stretches."""

MOST_WINDOWS = 5
LEAST_CYCLES = 4
LEAST_SWING = 0.02
"""Standard deviation of the activity (0..1) below which it is flat, whatever its rhythm."""

LEAST_CORRELATION = 0.5
NEARLY_HIGHEST = 0.9
"""Of the lags whose correlation is nearly the highest the shortest is the period; the others are its multiples."""

AGREE = 0.05
"""Stretches agree when their periods differ by less than this share."""


@dataclass(frozen=True, slots=True)
class Period:
    """Activity repeats every `seconds`; `correlation` (0..1) is that of one period with the next."""

    seconds: float
    correlation: float


def period(values: Sequence[float], bin_s: float) -> Period | None:
    """Return the period of evenly spaced `values`, one a `bin_s`; None if nothing repeats, or not throughout."""
    found = [each for stretch in _stretches(values) if (each := _of_stretch(stretch, bin_s))]
    if not found:
        return None
    middle = statistics.median_low(each.seconds for each in found)
    agree = [each for each in found if abs(each.seconds - middle) <= AGREE * middle]
    if 2 * len(agree) <= len(_stretches(values)):
        return None
    return Period(statistics.fmean(each.seconds for each in agree), min(each.correlation for each in agree))


def _stretches(values: Sequence[float]) -> list[Sequence[float]]:
    count = min(MOST_WINDOWS, max(1, len(values) // WINDOW))
    room = len(values) // count
    return [values[room * number : room * number + min(room, WINDOW)] for number in range(count)]


def _of_stretch(values: Sequence[float], bin_s: float) -> Period | None:
    if len(values) < 3 * LEAST_CYCLES or statistics.pstdev(_clipped(values)) < LEAST_SWING:
        return None
    correlation = autocorrelation(_clipped(values), len(values) // LEAST_CYCLES)
    peaks = [
        lag
        for lag in range(2, len(correlation) - 1)
        if correlation[lag] >= max(correlation[lag - 1], correlation[lag + 1], LEAST_CORRELATION)
    ]
    if not peaks:
        return None
    highest = max(correlation[lag] for lag in peaks)
    first = next(lag for lag in peaks if correlation[lag] >= NEARLY_HIGHEST * highest * _between_samples(lag))
    return Period(_refined(correlation, first) * bin_s, min(correlation[first], 1.0))


def _clipped(values: Sequence[float]) -> list[float]:
    """Limit values to their deciles, so that a checkpoint within does not drown the iterations."""
    low, *_, high = statistics.quantiles(values, n=10)
    return [min(max(value, low), high) for value in values]


def autocorrelation(values: Sequence[float], most_lag: int) -> list[float]:
    """Return the correlation of `values` with themselves, shifted by 0 to `most_lag` places."""
    mean = statistics.fmean(values)
    centred = [value - mean for value in values]
    power = sum(value * value for value in centred) / len(centred)
    return [
        sum(map(float.__mul__, centred, centred[lag:])) / (len(centred) - lag) / power for lag in range(most_lag + 1)
    ]


def _between_samples(lag: int) -> float:
    """What is left of a correlation when the true period lies half a sample beside `lag`."""
    return math.cos(math.pi / max(lag, 3))


def _refined(correlation: Sequence[float], lag: int) -> float:
    """Follow the peak through its multiples: the place of the n-th, divided by n, is n times as exact."""
    exact = float(lag)
    for multiple in range(1, (len(correlation) - 2) // lag + 1):
        place = round(exact * multiple)
        near = range(max(1, place - 1), min(place + 2, len(correlation) - 1))
        best = max(near, key=correlation.__getitem__, default=0)
        if not best or correlation[best] < LEAST_CORRELATION:
            break
        exact = (best + _vertex(*correlation[best - 1 : best + 2])) / multiple
    return exact


def _vertex(before: float, at: float, after: float) -> float:
    """Return where the parabola through three neighbours peaks, from the middle one."""
    bend = before - 2 * at + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0
