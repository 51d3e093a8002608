"""Sampling times: multiples of the interval on the wall clock, so that every node samples at the same moments."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator


def next_tick(now_ns: int, interval_ns: int) -> int:
    """Return the first multiple of the interval after `now_ns`."""
    return (now_ns // interval_ns + 1) * interval_ns


def tick_reached(due_ns: int, now_ns: int, interval_ns: int) -> int:
    """Return the tick to sample for, `due_ns` having been waited for and the clock now saying `now_ns`.

    It is the due one, even if the wait ended a little early; a later one if the process was held up, for no sample
    pretends to be older than an interval; and the present one if the clock was set back.
    """
    latest = now_ns // interval_ns * interval_ns
    set_back = now_ns < due_ns - interval_ns
    return latest if set_back else max(due_ns, latest)


def ticks(interval_ns: int, stopped: Callable[[float], bool], *, first_ns: int) -> Iterator[int]:
    """Yield the sampling times as they come, until `stopped`, which waits for so many seconds, says so.

    The first is the next multiple of `first_ns`, so that a short job has a sample of what is sampled seldom. A
    consumer that takes longer than an interval misses ticks; it never gets late ones in a burst.
    """
    step_ns = min(first_ns, interval_ns)
    while True:
        now_ns = time.time_ns()
        due_ns = next_tick(now_ns, step_ns)
        if stopped((due_ns - now_ns) / 1e9):
            return
        yield tick_reached(due_ns, time.time_ns(), step_ns)
        step_ns = interval_ns
