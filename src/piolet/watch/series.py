"""A quantity over time, few enough points for a plot, every peak kept: each has the mean, the lowest and the highest.

Blanks (null, a ratio outside 0..1) are left out and counted by the data quality; nothing is interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any

from piolet.core.errors import UsageError
from piolet.core.nouns import Interval
from piolet.core.text import did_you_mean
from piolet.logbook.reader import Reader
from piolet.logbook.schema import FAMILIES, Family
from piolet.logbook.units import unit

SECOND_NS = 1_000_000_000


class Split(StrEnum):
    """What gets a line of its own."""

    JOB = "job"
    NODE = "node"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class Metric:
    """A numeric column of a family; in the family `user`, the name of what the program reports."""

    family: str
    column: str

    @property
    def unit(self) -> str:
        """The unit, empty for counts and for what the program reports."""
        return "" if self.family == "user" else unit(self.column)

    @property
    def meaning(self) -> str:
        """What the column holds, in the schema's words."""
        return FAMILIES[self.family].meanings.get(self.column, "reported by the program")

    def check(self) -> None:
        """Raise a UsageError that names what is known, unless there is such a column."""
        if self.family not in FAMILIES:
            raise UsageError(f"no family {self.family}", remedy=did_you_mean(self.family, FAMILIES))
        if self.family != "user" and self.column not in (names := FAMILIES[self.family].numbers):
            raise UsageError(f"{self.family} has no metric {self.column}", remedy=did_you_mean(self.column, names))


@dataclass(frozen=True, slots=True)
class Line:
    """One line: a device of a node, a node (`device` empty), or the job (both empty). Times begin the bins."""

    node: str
    device: str
    times_ns: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    samples: tuple[int, ...]

    @property
    def name(self) -> str:
        """The line's name, such as ``node1:0``."""
        return f"{self.node}:{self.device}" if self.device else self.node or "job"


@dataclass(frozen=True, slots=True)
class Series:
    """The lines of a metric in an interval, in bins of `width_ns`; `coverage_ratio` is the share of expected samples.

    It is None where nobody knows what to expect.
    """

    metric: Metric
    interval: Interval
    width_ns: int
    lines: tuple[Line, ...]
    coverage_ratio: float | None


def device(family: Family) -> str:
    """Return the SQL of what tells apart the lines of a node, as text; empty for a family of one row a node."""
    if family.name == "user":
        return "coalesce(CAST(rank AS VARCHAR), '')"
    names = [name for name in family.key if name not in {"time_ns", "node"}]
    return " || ':' || ".join(f"coalesce(CAST({_quoted(name)} AS VARCHAR), '')" for name in names) or "''"


def value(metric: Metric) -> str:
    """Return the SQL of a metric's value, null where it is a blank."""
    if metric.family == "user":
        return "CASE WHEN isfinite(value) THEN value END"
    column = _quoted(metric.column)
    return f"CASE WHEN {column} BETWEEN 0 AND 1 THEN {column} END" if metric.unit == "1" else column


def statement(metric: Metric, split: Split) -> str:
    """Return the query of a series: parameters start, end, width (ns), and name (family `user`)."""
    family = FAMILIES[metric.family]
    line_node = "''" if split is Split.JOB else "node"
    line = device(family) if split is Split.DEVICE else "''"
    named = " AND name = $name" if metric.family == "user" else ""
    return f"""
        SELECT line_node, line_device, bin, avg(value) AS mean, min(value) AS low, max(value) AS high,
            count(value) AS samples
        FROM (
            SELECT {line_node} AS line_node, {line} AS line_device,
                CAST(floor((time_ns - $start) / $width) AS BIGINT) AS bin, CAST({value(metric)} AS DOUBLE) AS value
            FROM {_quoted(family.name)} WHERE time_ns >= $start AND time_ns < $end{named}
        ) AS samples
        WHERE value IS NOT NULL
        GROUP BY line_node, line_device, bin ORDER BY line_node, line_device, bin
    """  # noqa: S608 - known families and columns


def read_series(
    reader: Reader,
    metric: Metric,
    interval: Interval,
    split: Split,
    *,
    points: int,
    period_s: float,
    expected: int | None,
) -> Series:
    """Return a series of at most `points` bins, each no shorter than a sampling period and a whole number of them.

    `expected` is the number of lines that should report every period.
    """
    width_ns = bin_width_ns(interval, points, period_s)
    parameters: dict[str, Any] = {"start": interval.start_ns, "end": interval.end_ns, "width": width_ns}
    if metric.family == "user":
        parameters["name"] = metric.column
    found = reader.database.execute(statement(metric, split), parameters).fetchall()
    lines = tuple(
        _line(node, name, list(rows), interval, width_ns) for (node, name), rows in groupby(found, key=_line_of)
    )
    due = (expected or 0) * interval.duration_s / period_s
    samples = sum(sum(line.samples) for line in lines)
    return Series(metric, interval, width_ns, lines, min(1.0, samples / due) if due >= 1 else None)


def bin_width_ns(interval: Interval, points: int, period_s: float) -> int:
    """Return the width of a bin, in whole sampling periods."""
    period_ns = max(1, round(period_s * SECOND_NS))
    return period_ns * max(1, math.ceil((interval.end_ns - interval.start_ns) / (max(points, 1) * period_ns)))


def _line_of(row: Sequence[Any]) -> tuple[str, str]:
    return row[0], row[1]


def _line(node: str, name: str, rows: Sequence[Sequence[Any]], interval: Interval, width_ns: int) -> Line:
    _, _, bins, mean, low, high, samples = zip(*rows, strict=True)
    times = tuple(interval.start_ns + each * width_ns for each in bins)
    return Line(node, name, times, mean, low, high, samples)


def _quoted(name: str) -> str:
    return f'"{name}"'
