"""The job over time, as the report draws it: bins coarse enough for a page, fine enough for the eye."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from piolet.logbook.reader import Reader
from piolet.score.measure import Window, rows
from piolet.score.weights import expression

MOST_POINTS = 480
LEAST_POINTS = 120
MOST_MEANS = 1_500_000
"""Means of a GPU and bin that are worth their time: a job of very many GPUs is drawn in fewer points."""

MOST_CELLS = 240
MOST_GPU_ROWS = 64
"""With more GPUs than this the heat strip has one row a node."""

MOST_NODE_ROWS = 96
"""With more nodes than this the heat strip shows those with the lowest saturation."""

MOST_EVENTS = 60
MOST_METRICS = 3


@dataclass(frozen=True, slots=True)
class Series:
    """A quantity over time: `mean` with the band `low`..`high` (10 % and 90 % of the GPUs). Times in seconds."""

    times_s: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class HeatRow:
    """One GPU or node: its saturation per cell, None where nothing was observed."""

    node: str
    name: str
    cells: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, `time_s` seconds after the start."""

    time_s: float
    node: str
    gpu: int | None
    kind: str
    code: str
    severity: str
    message: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """Everything over time. `series` has saturation, compute, memory, network, power and what the program reported."""

    start_ns: int
    length_s: float
    series: Mapping[str, Series]
    metrics: Mapping[str, Series]
    heat: tuple[HeatRow, ...]
    events: tuple[Event, ...]
    last_step: int | None


def timeline(reader: Reader, window: Window, weights: Mapping[str, float] | None = None) -> Timeline:
    """Return the timeline of a logbook whose `seconds` table is prepared; with `weights` the series `weighed` too."""
    return Timeline(
        start_ns=window.start_ns,
        length_s=window.duration_s,
        series=_series(reader, window, ({"weighed": expression(weights)} if weights else {}) | _COLUMNS),
        metrics=_metrics(reader, window),
        heat=heat_rows(reader, window),
        events=_events(reader, window),
        last_step=reader.database.execute("SELECT max(step) FROM user").fetchall()[0][0],
    )


_COLUMNS = {
    "saturation": "score",
    "compute": "compute",
    "memory": "memory",
    "network": "network",
    "power": "power_w",
}


def _width_s(window: Window, most: int) -> float:
    return max(window.bin_s, window.duration_s / most)


def _series(reader: Reader, window: Window, columns: Mapping[str, str]) -> dict[str, Series]:
    gpus = int(reader.database.execute("SELECT count(*) FROM allocated").fetchall()[0][0])
    found = _banded(reader, window, columns, max(LEAST_POINTS, min(MOST_POINTS, MOST_MEANS // max(gpus, 1))))
    each = {name: [(row["time_s"], *row[name]) for row in found if row[name]] for name in columns}
    return {name: _columns(values) for name, values in each.items() if values}


def _banded(reader: Reader, window: Window, columns: Mapping[str, str], points: int) -> list[dict[str, Any]]:
    """Return per bin the mean over the GPUs of each quantity, and its 10 % and 90 % quantiles: [mean, low, high]."""
    means = ", ".join(f"avg({column}) AS {name}" for name, column in columns.items())
    bands = ", ".join(f"[avg({name})] || quantile_cont({name}, [0.1, 0.9]) AS {name}" for name in columns)
    return rows(
        reader,
        f"""
        WITH each AS (
            SELECT id, floor(time_s / $width) AS point, {means} FROM seconds WHERE time_s < $end GROUP BY id, point
        )
        SELECT point * $width AS time_s, {bands} FROM each GROUP BY point ORDER BY point
        """,  # noqa: S608 - known columns
        {"width": _width_s(window, points), "end": window.duration_s},
    )


def _metrics(reader: Reader, window: Window) -> dict[str, Series]:
    found = reader.database.execute(
        """
        WITH timed AS (SELECT name, value, (time_ns - $start) / 1e9 AS time_s FROM user WHERE isfinite(value))
        SELECT name, floor(time_s / $width) AS bin, avg(value), min(value), max(value)
        FROM timed WHERE name != 'step' AND time_s BETWEEN 0 AND $end GROUP BY ALL ORDER BY ALL
        """,
        {"start": window.start_ns, "end": window.duration_s, "width": _width_s(window, MOST_POINTS)},
    ).fetchall()
    width_s = _width_s(window, MOST_POINTS)
    names = sorted({name for name, *_ in found}, key=lambda name: (name != "loss", name))[:MOST_METRICS]
    return {name: _columns([(bin_ * width_s, *rest) for each, bin_, *rest in found if each == name]) for name in names}


def _columns(found: Sequence[Sequence[Any]]) -> Series:
    times, mean, low, high = zip(*found, strict=True) if found else ((), (), (), ())
    return Series(tuple(times), tuple(mean), tuple(low), tuple(high))


def heat_rows(reader: Reader, window: Window) -> tuple[HeatRow, ...]:
    """Return the rows of the heat strip of a logbook whose `seconds` table is prepared."""
    width_s = _width_s(window, MOST_CELLS)
    gpus = reader.database.execute("SELECT count(*) FROM allocated").fetchall()[0][0]
    name = "a.node || ':' || a.gpu" if gpus <= MOST_GPU_ROWS else "a.node"
    found = reader.database.execute(
        f"""
        SELECT a.node, {name} AS name, floor(s.time_s / $width)::INTEGER AS cell, avg(s.score), min(a.id) AS first
        FROM allocated a LEFT JOIN seconds s ON s.id = a.id AND s.score IS NOT NULL AND s.time_s < $end
        GROUP BY ALL ORDER BY first
        """,  # noqa: S608 - one of two known expressions
        {"width": width_s, "end": window.duration_s},
    ).fetchall()
    count = max(1, -int(-window.duration_s // width_s))
    cells: dict[tuple[str, str], list[float | None]] = {}
    for node, label, cell, score, _ in found:
        row = cells.setdefault((node, label), [None] * count)
        if cell is not None and 0 <= cell < count:
            row[cell] = score
    return tuple(HeatRow(node, label, tuple(row)) for (node, label), row in _lowest(cells))


def _lowest(cells: Mapping[tuple[str, str], list[float | None]]) -> list[tuple[tuple[str, str], list[float | None]]]:
    """Return all rows in order, or the lowest ones if there are too many."""
    items = list(cells.items())
    if len(items) <= MOST_NODE_ROWS:
        return items
    return sorted(items, key=lambda item: sum(cell or 0.0 for cell in item[1]))[:MOST_NODE_ROWS]


def _events(reader: Reader, window: Window) -> tuple[Event, ...]:
    found = rows(
        reader,
        """
        SELECT (time_ns - $start) / 1e9 AS time_s, node, gpu, coalesce(kind, '') AS kind, coalesce(code, '') AS code,
            coalesce(severity, '') AS severity, coalesce(message, '') AS message
        FROM events WHERE kind != 'collector'
        ORDER BY severity = 'error' DESC, severity = 'warning' DESC, kind = 'phase' DESC, time_ns LIMIT $most
        """,
        {"start": window.start_ns, "most": MOST_EVENTS},
    )
    return tuple(sorted((Event(**row) for row in found), key=lambda event: event.time_s))
