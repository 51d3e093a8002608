"""The chart of growth: seconds over size, both logarithmic, a line for each curve, as one SVG by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 1000, 560
LEFT, RIGHT, TOP, BOTTOM = 70, 290, 20, 50
COLOURS = ("#0b7285", "#c92a2a", "#2b8a3e", "#e67700", "#5f3dc4", "#364fc7", "#a61e4d", "#087f5b", "#862e9c", "#495057",
           "#d9480f")  # fmt: skip
STYLE = """<title>Seconds over size</title>
<style>
text { font: 12px sans-serif; fill: #555 }
path { fill: none; stroke-width: 2 }
.grid { stroke: #8884; stroke-width: 1 }
</style>"""
LINE = 15
"""Of a label, in pixels."""

Curve = Mapping[str, Any]


def drawn(curves: Sequence[Curve]) -> str:
    """Return the chart of curves, each with its `values`: pairs of size and seconds."""
    sizes = [size for each in curves for size, _ in each["values"]]
    times = [taken for each in curves for _, taken in each["values"]]
    axes = Axes(_decades(sizes), _decades(times))
    parts = [*axes.grid(), *(part for index, each in enumerate(curves) for part in axes.line(each, COLOURS[index]))]
    parts += labels(axes, curves)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return "\n".join([head, STYLE, *parts, "</svg>"]) + "\n"


class Axes:
    """Where sizes and seconds lie, each between two powers of ten."""

    def __init__(self, sizes: tuple[int, int], times: tuple[int, int]) -> None:
        self.sizes, self.times = sizes, times

    def x(self, size: float) -> float:
        """Return the place of a size."""
        return _between(math.log10(size), self.sizes, LEFT, WIDTH - RIGHT)

    def y(self, seconds: float) -> float:
        """Return the place of a time."""
        return _between(math.log10(seconds), self.times, HEIGHT - BOTTOM, TOP)

    def grid(self) -> Iterator[str]:
        """Yield a line and a word for each power of ten."""
        for power in range(self.sizes[0], self.sizes[1] + 1):
            x = self.x(10**power)
            yield f'<path class="grid" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
            yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{_power(power)}</text>'
        for power in range(self.times[0], self.times[1] + 1):
            y = self.y(10.0**power)
            yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
            yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_power(power)} s</text>'
        middle = (LEFT + WIDTH - RIGHT) / 2
        yield f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">nodes, samples, jobs, files, evidence</text>'

    def line(self, curve: Curve, colour: str) -> Iterator[str]:
        """Yield the line of a curve and its points."""
        places = [(self.x(size), self.y(taken)) for size, taken in curve["values"]]
        yield f'<path stroke="{colour}" d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in places)}"/>'
        for x, y in places:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'


def labels(axes: Axes, curves: Sequence[Curve]) -> Iterator[str]:
    """Yield the name of each curve beside the chart, at the height of its end as far as others leave room."""
    ends = sorted((axes.y(each["values"][-1][1]), index) for index, each in enumerate(curves))
    lowest = float(TOP)
    for y, index in ends:
        lowest = max(lowest, y)
        each, colour = curves[index], COLOURS[index]
        end_x = axes.x(each["values"][-1][0])
        yield f'<path class="grid" d="M{end_x + 5:.1f} {y:.1f}L{WIDTH - RIGHT + 6} {lowest:.1f}"/>'
        text = escape(f"{each['what']} ({each['over']}: {each['exponent']})")
        yield f'<text x="{WIDTH - RIGHT + 10}" y="{lowest + 4:.1f}" style="fill:{colour}">{text}</text>'
        lowest += LINE


def _decades(values: Sequence[float]) -> tuple[int, int]:
    return math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))


def _between(value: float, range_: tuple[int, int], low: float, high: float) -> float:
    return low + (value - range_[0]) / (range_[1] - range_[0]) * (high - low)


def _power(power: int) -> str:
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
