"""A series as the plots of a page want it: seconds since the start, one list a line, nulls where nothing is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from piolet.core.errors import UsageError
from piolet.core.nouns import Interval
from piolet.core.text import plural
from piolet.score import words
from piolet.watch import Book, Line, Metric, Series, Split
from piolet.watch.book import Event
from piolet.watch.series import bin_width_ns
from piolet.web.digest import Digest

POINTS = 420
FEW_POINTS = 210
"""Points of each of many lines."""

LEAST_POINTS = 200
"""A digest that has fewer in a range is too coarse for it."""

MOST_LINES = 64
"""Lines of a plot; more is a heat map's business."""

_SIGNIFICANT = 4
_SECOND_NS = 1e9


@dataclass(frozen=True, slots=True)
class Plotted:
    """What a plot shows: a metric of some nodes (none: all) between two times, in seconds since the program's start."""

    metric: Metric
    split: Split = Split.JOB
    nodes: tuple[str, ...] = ()
    from_s: float | None = None
    to_s: float | None = None


def plot(book: Book, digest: Digest | None, wanted: Plotted) -> dict[str, Any]:
    """Return a plot's data.

    Raises:
        UsageError: no such metric, nothing recorded, or more lines than a plot can show.
    """
    wanted.metric.check()
    whole = digest.interval if digest else book.interval
    if whole is None:
        return {"times": [], "lines": [], "unit": "", "marks": [], "summary": "nothing was recorded yet"}
    series = _series(book, digest, wanted, _within(whole, wanted.from_s, wanted.to_s))
    if len(series.lines) > MOST_LINES:
        raise UsageError(
            f"{len(series.lines)} lines are more than a plot can show", remedy="split by job, or look at one node"
        )
    bins = sorted({time for line in series.lines for time in line.times_ns})
    return {
        "times": [round((time - whole.start_ns) / _SECOND_NS, 3) for time in bins],
        "lines": [_line(line, bins) for line in series.lines],
        "band": _band(series.lines, bins),
        "unit": "%" if wanted.metric.unit == "1" else wanted.metric.unit,
        "coverage": series.coverage_ratio,
        "marks": [_mark(event, whole) for event in _marking(book, wanted.nodes)],
        "summary": summary(series),
    }


def _series(book: Book, digest: Digest | None, wanted: Plotted, interval: Interval) -> Series:
    """Return what the digest keeps, where that is fine enough; else what was recorded."""
    points = POINTS if wanted.split is Split.JOB or len(wanted.nodes) == 1 else FEW_POINTS
    period_s = book.job.period_s(wanted.metric.family) or book.period_s
    if digest and digest.fine_enough(wanted.metric, wanted.split, bin_width_ns(interval, LEAST_POINTS, period_s)):
        return digest.series(wanted.metric, interval, wanted.split, wanted.nodes, points=points)
    return book.series(wanted.metric, split=wanted.split, nodes=wanted.nodes, interval=interval, points=points)


def _marking(book: Book, nodes: Sequence[str]) -> Iterator[Event]:
    found = book.events(kinds=("xid", "throttle"))
    return (event for event in found if not nodes or event.node in nodes)


def plot_of_answer(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any] | None:
    """Return the plot of a query's answer over its column time_ns, a line for each number; None if it has no time."""
    if "time_ns" not in columns or not rows:
        return None
    at = columns.index("time_ns")
    ordered = sorted((row for row in rows if row[at] is not None), key=lambda row: row[at])
    numbers = [
        number
        for number, name in enumerate(columns)
        if name != "time_ns" and any(isinstance(row[number], int | float) for row in ordered)
    ][:MOST_LINES]
    return {
        "times": [round((row[at] - ordered[0][at]) / _SECOND_NS, 3) for row in ordered],
        "lines": [{"name": columns[number], "mean": [row[number] for row in ordered]} for number in numbers],
        "unit": "",
        "marks": [],
        "summary": f"{', '.join(columns[number] for number in numbers)} over time, {plural(len(ordered), 'row')}",
    }


def summary(series: Series) -> str:
    """Return the plot in a sentence, for those who cannot see it."""
    if not series.lines:
        return f"{series.metric.meaning}: no values"
    low = min(min(line.low) for line in series.lines)
    high = max(max(line.high) for line in series.lines)
    total = sum(sum(line.samples) for line in series.lines)
    mean = sum(value * count for line in series.lines for value, count in zip(line.mean, line.samples, strict=True))
    said = [_said(value, series.metric.unit) for value in (low, high, mean / total)]
    covered = f", {words.percent(series.coverage_ratio)} of the expected samples" if series.coverage_ratio else ""
    return (
        f"{series.metric.meaning}: from {said[0]} to {said[1]}, on average {said[2]}, in "
        f"{plural(len(series.lines), 'line')}{covered}"
    )


def spark(values: Sequence[float | None]) -> str:
    """Return a small picture of values 0..1 as SVG; a hole is a hole."""
    step = 120 / max(len(values) - 1, 1)
    points = ((number * step, 22 - 20 * min(max(value, 0.0), 1.0)) for number, value in _known(values))
    path, last = [], None
    for x, y in points:
        path.append(f"{'L' if last is not None and x - last <= 1.5 * step else 'M'}{x:.1f} {y:.1f}")
        last = x
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 24" width="120" height="24">'
        '<path d="M0 22.5H120" stroke="#9aa6ae" stroke-width=".7"/>'
        f'<path d="{"".join(path)}" fill="none" stroke="#4f9fb8" stroke-width="1.6" stroke-linejoin="round"/></svg>'
    )


def _known(values: Sequence[float | None]) -> Iterable[tuple[int, float]]:
    return ((number, value) for number, value in enumerate(values) if value is not None)


def _within(whole: Interval, from_s: float | None, to_s: float | None) -> Interval:
    start_ns = whole.start_ns + round(max(from_s or 0.0, 0.0) * _SECOND_NS)
    end_ns = whole.end_ns if to_s is None else min(whole.end_ns, whole.start_ns + round(to_s * _SECOND_NS))
    return Interval(start_ns, end_ns) if end_ns > start_ns else whole


def _line(line: Line, bins: Sequence[int]) -> dict[str, Any]:
    mean = dict(zip(line.times_ns, line.mean, strict=True))
    return {"name": line.name, "mean": [_short(mean.get(time)) for time in bins]}


def _band(lines: Sequence[Line], bins: Sequence[int]) -> dict[str, list[float | None]]:
    """Return the lowest and the highest value of all lines at each time: no peak is lost, however many they are."""
    low: dict[int, float] = {}
    high: dict[int, float] = {}
    for line in lines:
        for time, lowest, highest in zip(line.times_ns, line.low, line.high, strict=True):
            low[time], high[time] = min(lowest, low.get(time, lowest)), max(highest, high.get(time, highest))
    return {"low": [_short(low.get(time)) for time in bins], "high": [_short(high.get(time)) for time in bins]}


def _mark(event: Event, whole: Interval) -> dict[str, Any]:
    return {"at": (event.time_ns - whole.start_ns) / _SECOND_NS, "severity": event.severity}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_SIGNIFICANT}g}")


def _said(value: float, unit: str) -> str:
    return words.percent(value) if unit == "1" else f"{value:.3g} {unit}".strip()
