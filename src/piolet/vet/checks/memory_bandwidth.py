"""The memory of the host is copied as fast as on other nodes."""

from __future__ import annotations

import ctypes
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Annotated

from annotated_types import Ge, Gt

from piolet.core.nouns import Status
from piolet.vet.check import Check, Context, Judgement

_Pair = tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]
_COPIED_TWICE = 2  # STREAM counts what is read and what is written


@dataclass(frozen=True, slots=True)
class Parameters:
    """`min_gb_per_s`: GB/s (10^9 bytes), read and written; left out, compare the nodes by `criteria`.

    `mib`: memory that is copied, in all; `threads`: at once, one a CPU of the step if left out, 64 at most. The median
    of `repetitions` counts, after one that does not.
    """

    min_gb_per_s: Annotated[float, Gt(0)] | None = None
    mib: Annotated[int, Ge(8)] = 512
    threads: Annotated[int, Ge(1)] | None = None
    repetitions: Annotated[int, Ge(3)] = 5


def observe(parameters: Parameters, context: Context) -> tuple[float, ...]:  # noqa: ARG001 - the interface of checks
    """Return the bytes per second of each repetition."""
    threads = parameters.threads or min(len(os.sched_getaffinity(0)), 64)
    size = parameters.mib * (1 << 20) // threads // 2
    pairs = [(ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        rates = [_rate(pool, pairs, size) for _ in range(parameters.repetitions + 1)]
    return tuple(rates[1:])


def _rate(pool: ThreadPoolExecutor, pairs: list[_Pair], size: int) -> float:
    """Copy all pairs at once; memmove runs without Python's lock."""
    started_s = time.perf_counter()
    list(pool.map(lambda pair: ctypes.memmove(pair[0], pair[1], size) and None, pairs))
    return _COPIED_TWICE * size * len(pairs) / (time.perf_counter() - started_s)


def judge(observation: tuple[float, ...], parameters: Parameters) -> Judgement:
    """Fail if the median is below the least; without one, give the value for criteria to judge."""
    gb_per_s, least = round(median(observation) / 1e9, 3), parameters.min_gb_per_s
    reason = f"host memory is copied at {gb_per_s:.1f} GB/s"
    if least is None or gb_per_s >= least:
        return Judgement(Status.PASS, reason, gb_per_s, least, "GB/s")
    remedy = "look for a missing memory module (`memory`), another job, or a governor that saves power (`cpu`)"
    return Judgement(Status.FAIL, reason, gb_per_s, least, "GB/s", remedy)


CHECK = Check(
    name="memory_bandwidth",
    version=1,
    summary="the memory of the host is copied as fast as it must be",
    source="the site, or the median of the job's own nodes; counted as McCalpin's STREAM counts its copy",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    better="higher",
    quiet=True,
    typical_s=3.0,
)
