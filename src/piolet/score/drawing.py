"""Drawing without a library: SVG paths, axes and a small PNG, as text that goes into the page.

Plots are 1000 x 100 units and stretched by the page; labels are HTML, so that they keep their size on a phone.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from piolet.score.timeline import HeatRow, Series

WIDTH = 1000.0
HEIGHT = 100.0
GAP_BINS = 3
"""A line breaks where more than this many bins are missing: nothing is drawn that was not observed."""

MOST_TICKS = 6
_STEPS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800)
_MINUTE_S = 60
_HOUR_S = 3600

INK = (20, 86, 118)
"""The colour of the heat strip; its opacity is the saturation, so it works on light and dark paper."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A label at `at` per cent of an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """The SVG paths of one series: the line of its mean and the band around it."""

    line: str
    band: str
    y_ticks: tuple[Tick, ...]
    top: float
    bottom: float


def plot(series: Series, length_s: float, *, bottom: float = 0.0, top: float = 1.0, unit: str = "%") -> Plot:
    """Draw a series over 0..length_s between `bottom` and `top`."""
    spans = list(_unbroken(series.times_s))
    place = _Place(length_s, bottom, top)
    line = "".join(_line(series, span, place) for span in spans)
    band = "".join(_band(series, span, place) for span in spans)
    return Plot(line, band, _y_ticks(bottom, top, unit), top, bottom)


def fitted(series: Series, length_s: float) -> Plot:
    """Draw a series with an axis that fits its values."""
    low, high = min(series.mean), max(series.mean)
    margin = (high - low or abs(high) or 1.0) * 0.08
    return plot(series, length_s, bottom=low - margin, top=high + margin, unit="")


def nice_top(value: float) -> float:
    """Return the next of 1, 2, 5, 10 ... at or above `value`."""
    if value <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return next(step * size for step in (1, 2, 4, 5, 8, 10) if step * size >= value)


def time_ticks(length_s: float) -> tuple[Tick, ...]:
    """Return the labels of the time axis, at most MOST_TICKS + 1 of them."""
    if length_s <= 0:
        return ()
    step = next((step for step in _STEPS_S if length_s / step <= MOST_TICKS), _STEPS_S[-1])
    count = int(length_s // step)
    return tuple(Tick(100 * number * step / length_s, clock(number * step)) for number in range(count + 1))


def clock(seconds: float) -> str:
    """Return seconds since the start as ``40 s``, ``3:20`` or ``1:05:00``."""
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    hours, rest = divmod(whole, _HOUR_S)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def heat_image(rows: Sequence[HeatRow]) -> str:
    """Return a data URI of a PNG with one pixel a cell; opacity is the saturation, cells without data are clear."""
    lines = (bytes(_grey(cell) for cell in row.cells) for row in rows)
    raw = b"".join(b"\0" + line for line in lines)
    header = struct.pack(">IIBBBBB", len(rows[0].cells), len(rows), 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", bytes(INK) * 256),
        (b"tRNS", bytes(range(256))),
        (b"IDAT", zlib.compress(raw, 9)),
        (b"IEND", b""),
    )
    png = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def holes(row: HeatRow) -> list[tuple[float, float]]:
    """Return the stretches of a row without data as (start, width) in per cent."""
    count, found, start = len(row.cells), [], None
    for position, cell in enumerate((*row.cells, 0.0)):
        if cell is None and start is None:
            start = position
        elif cell is not None and start is not None:
            found.append((100 * start / count, 100 * (position - start) / count))
            start = None
    return found


def _grey(cell: float | None) -> int:
    return 0 if cell is None else 10 + round(245 * min(max(cell, 0.0), 1.0))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@dataclass(frozen=True, slots=True)
class _Place:
    """Maps (seconds, value) to the units of a plot."""

    length_s: float
    bottom: float
    top: float

    def __call__(self, time_s: float, value: float) -> str:
        x = WIDTH * time_s / self.length_s
        share = (value - self.bottom) / (self.top - self.bottom)
        return f"{x:.1f} {HEIGHT * (1 - min(max(share, 0.0), 1.0)):.1f}"


def _unbroken(times: Sequence[float]) -> Iterator[slice]:
    """Yield the slices of times without a gap."""
    step = min((after - before for before, after in pairwise(times)), default=0.0)
    start = 0
    for position, (before, after) in enumerate(pairwise(times), start=1):
        if after - before > GAP_BINS * step:
            yield slice(start, position)
            start = position
    if times:
        yield slice(start, len(times))


def _line(series: Series, span: slice, place: _Place) -> str:
    points = [place(time, value) for time, value in zip(series.times_s[span], series.mean[span], strict=True)]
    return f"M{'L'.join(points)}" if len(points) > 1 else f"M{points[0]}h1"


def _band(series: Series, span: slice, place: _Place) -> str:
    times = series.times_s[span]
    above = [place(time, value) for time, value in zip(times, series.high[span], strict=True)]
    below = [place(time, value) for time, value in zip(times, series.low[span], strict=True)]
    return f"M{'L'.join([*above, *reversed(below)])}Z"


def _y_ticks(bottom: float, top: float, unit: str) -> tuple[Tick, ...]:
    def text(value: float) -> str:
        if unit == "%":
            return f"{100 * value:.0f}"
        return f"{value:.0f}" if unit else f"{value:.3g}"

    if not unit:
        margin = (top - bottom) * 0.08 / 1.16
        return (
            Tick(100 * margin / (top - bottom), text(bottom + margin)),
            Tick(100 - 100 * margin / (top - bottom), text(top - margin)),
        )
    return tuple(Tick(at, text(bottom + (top - bottom) * at / 100)) for at in (0.0, 50.0, 100.0))
