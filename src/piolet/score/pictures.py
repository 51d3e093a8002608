"""What the report draws over time: plots, phases, marks and heat strips, and the numbers behind them for its script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from piolet.score import drawing, words
from piolet.score.drawing import Plot
from piolet.score.model import JobScore
from piolet.score.timeline import Event, HeatRow, Series, Timeline
from piolet.score.weights import named


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot over time."""

    key: str
    title: str
    unit: str
    plot: Plot
    summary: str


@dataclass(frozen=True, slots=True)
class PhaseBar:
    """A phase on the time axis, from and width in per cent of the job's length."""

    name: str
    at: float
    width: float


@dataclass(frozen=True, slots=True)
class HeatGroup:
    """The rows of one node in the heat strip, with the holes of each row."""

    node: str
    image: str
    holes: tuple[tuple[tuple[float, float], ...], ...]


def panels(over_time: Timeline | None, weights: Mapping[str, float]) -> list[Panel]:
    """Return the plots of what was recorded: a weighed view if one was asked for, saturation, its axes, power."""
    if over_time is None:
        return []
    weighed = ("weighed", f"Weighed, not the score: {named(weights)}")
    return [_panel(name, title, over_time) for name, title in (weighed, *_PANELS) if name in over_time.series]


_PANELS = (
    ("saturation", "Saturation (the higher of compute and memory)"),
    ("compute", "Compute"),
    ("memory", "Memory bandwidth"),
    ("network", "Links (NVLink, PCIe)"),
    ("power", "Power per GPU"),
)


def _panel(name: str, title: str, over_time: Timeline) -> Panel:
    series = over_time.series[name]
    mean = sum(series.mean) / len(series.mean)
    if name == "power":
        top = drawing.nice_top(max(series.high))
        drawn = drawing.plot(series, over_time.length_s, top=top, unit="W")
        return Panel(name, title, "W", drawn, f"{mean:.0f} W on average, at most {max(series.mean):.0f} W")
    drawn = drawing.plot(series, over_time.length_s)
    said = f"{words.percent(mean)} on average, at most {words.percent(max(series.mean))}"
    return Panel(name, title, "%", drawn, said)


def metric_panels(over_time: Timeline | None) -> list[Panel]:
    """Return the plots of what the program itself reported."""
    found = over_time.metrics.items() if over_time else ()
    return [
        Panel(f"user {name}", name, "", drawing.fitted(series, over_time.length_s), _from_to(series))
        for name, series in found
        if over_time
    ]


def _from_to(series: Series) -> str:
    return f"from {series.mean[0]:.3g} to {series.mean[-1]:.3g}"


def phase_bars(score: JobScore) -> list[PhaseBar]:
    """Return the phases as they stand on the time axis; one phase alone needs no bar."""
    whole_s = score.wall_s or 0.0
    found = score.phases if len(score.phases) > 1 and whole_s > 0 else ()
    return [PhaseBar(each.name, 100 * each.from_s / whole_s, 100 * each.duration_s / whole_s) for each in found]


def marks(over_time: Timeline | None) -> list[Event]:
    """Return the warnings and errors that happened while the program ran."""
    if over_time is None:
        return []
    serious = (event for event in over_time.events if event.severity in {"warning", "error"})
    return [event for event in serious if 0 <= event.time_s <= over_time.length_s]


def heat(rows: Sequence[HeatRow]) -> list[HeatGroup]:
    """Return one picture a node."""
    groups = ((node, list(group)) for node, group in groupby(rows, key=lambda row: row.node))
    return [
        HeatGroup(node, drawing.heat_image(group), tuple(tuple(drawing.holes(row)) for row in group))
        for node, group in groups
    ]


def data(over_time: Timeline | None) -> str:
    """Return the numbers behind the plots for the page's script; safe inside a script element."""
    if over_time is None:
        return "{}"
    everything = {**over_time.series, **{f"user {name}": series for name, series in over_time.metrics.items()}}
    content = {
        "length": over_time.length_s,
        "series": {
            name: [
                [round(time, 1), *(float(f"{value:.4g}") for value in values)]
                for time, *values in zip(series.times_s, series.mean, series.low, series.high, strict=True)
            ]
            for name, series in everything.items()
        },
    }
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
