"""Where start-up ends: a pure function over the job's saturation per second."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from piolet.score.model import IDLE_RATIO

STARTUP_MIN_S = 5.0
"""A low phase shorter than this is not worth a second number."""

WINDOW_S = 5.0
"""The level must hold this long (its median), so that a spike while loading does not end start-up."""

LEVEL_QUANTILE = 0.75
LEVEL_SHARE = 0.5


def startup_s(times_s: Sequence[float], saturation: Sequence[float], bin_s: float) -> float:
    """Return how many seconds the first long low phase lasts, 0.0 if there is none.

    `times_s` are seconds since the program started, ascending; `saturation` is the mean over the GPUs, 0..1. The
    phase ends when the saturation, and the median of the WINDOW_S from there, first reach half of the job's upper
    quartile.
    """
    if not saturation:
        return 0.0
    level = sorted(saturation)[math.ceil(LEVEL_QUANTILE * len(saturation)) - 1]
    width = max(1, round(WINDOW_S / bin_s))
    if level < IDLE_RATIO:
        return 0.0
    for position, time_s in enumerate(times_s):
        ahead = saturation[position : position + width]
        if min(ahead[0], statistics.median(ahead)) >= LEVEL_SHARE * level:
            return time_s if time_s >= STARTUP_MIN_S else 0.0
    return 0.0
