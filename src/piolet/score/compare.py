"""Comparing two jobs: the ratio of their saturations in steady state, with a confidence interval, as a gate can use it.

Both steady states are cut into the same number of blocks, the first block of one being paired with the first of the
other and so on, so that a schedule which both follow cancels out. A block is far longer than what makes neighbouring
seconds alike, so block means are close to independent; the interval is that of a ratio estimator over the pairs
(Cochran, Sampling Techniques, 6.5) with Student's t.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from piolet.core.errors import UsageError
from piolet.logbook.layout import Logbook
from piolet.logbook.reader import Reader, read, rereading
from piolet.logbook.records import read_job
from piolet.score import measure
from piolet.score.job import score_job
from piolet.score.model import JobScore

MOST_BLOCKS = 20
LEAST_BLOCKS = 6
LEAST_BLOCK_BINS = 5
"""A block of fewer seconds would be noise; a job with fewer blocks gets a ratio without an interval."""

_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
         2.120, 2.110, 2.101, 2.093)  # fmt: skip
"""Two-sided 95 % quantiles of Student's t for 1 to 19 degrees of freedom."""


class Verdict(StrEnum):
    """What a gate says: at least the limit, below it, or the interval holds the limit."""

    PASS = "pass"  # noqa: S105 - an outcome, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Saturation of one job over that of another; `low` to `high` is the 95 % interval, None if too little is known."""

    value: float
    low: float | None = None
    high: float | None = None
    blocks: int = 0

    def verdict(self, limit: float) -> Verdict:
        """Return whether the ratio is at least `limit`, with 95 % confidence either way."""
        if self.high is not None and self.high < limit:
            return Verdict.FAIL
        return Verdict.PASS if self.low is not None and self.low >= limit else Verdict.INCONCLUSIVE


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two jobs, and the steady saturation of `after` as a ratio of that of `before`."""

    before: JobScore
    after: JobScore
    ratio: Ratio


@rereading
def compare(before: Logbook, after: Logbook) -> Comparison:
    """Compare two logbooks.

    Raises:
        UsageError: one of them has no saturation to compare, or that of the first is zero.
    """
    with read(before) as first, read(after) as second:
        return compare_readers(first, second)


def compare_readers(before: Reader, after: Reader) -> Comparison:
    """Compare two open logbooks; see `compare`."""
    first, second = _steady(before), _steady(after)
    return Comparison(first[0], second[0], ratio(first[1], second[1]))


def _steady(reader: Reader) -> tuple[JobScore, list[float]]:
    logbook = reader.logbook
    score = score_job(reader, read_job(logbook.job))
    seconds = measure.each_second(reader, "score") if score.score is not None else []
    values = [value for time_s, value in seconds if time_s >= score.startup_s]
    if not any(values):
        raise UsageError(
            f"job {score.job_id} has no saturation to compare",
            where=str(logbook.path),
            remedy="look at it with `piolet score`; it says what was not measured",
        )
    return score, values


def ratio(before: Sequence[float], after: Sequence[float]) -> Ratio:
    """Return the ratio of two means, each of saturations per second, with its interval."""
    value = statistics.fmean(after) / statistics.fmean(before)
    blocks = min(MOST_BLOCKS, min(len(before), len(after)) // LEAST_BLOCK_BINS)
    if blocks < LEAST_BLOCKS:
        return Ratio(value)
    pairs = zip(block_means(before, blocks), block_means(after, blocks), strict=True)
    residuals = [second - value * first for first, second in pairs]
    error = math.sqrt(sum(each * each for each in residuals) / (blocks - 1) / blocks) / statistics.fmean(before)
    margin = _T_95[blocks - 2] * error
    return Ratio(value, max(0.0, value - margin), value + margin, blocks)


def block_means(values: Sequence[float], blocks: int) -> list[float]:
    """Return the means of `blocks` stretches of nearly equal length, at most as many as there are values."""
    edges = [len(values) * number // blocks for number in range(blocks + 1)]
    return [statistics.fmean(values[start:end]) for start, end in itertools.pairwise(edges)]
