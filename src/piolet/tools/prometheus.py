"""Prometheus' text format: one line a sample, as exporters answer and `promtool` reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from piolet.core.errors import ParseError

_LINE = re.compile(
    r"(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+(?P<time>-?[\d.]+))?\s*(?:#.*)?"
)
_LABEL = re.compile(r'\s*([A-Za-z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
_ESCAPE = re.compile(r"\\(.)")
_MILLISECONDS_FROM = 1e11
"""Prometheus stamps in milliseconds, OpenMetrics in seconds: from this number on they are milliseconds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample; `time_ns` is None where the exporter leaves the time to who asks."""

    name: str
    labels: Mapping[str, str]
    value: float
    time_ns: int | None = None


def parse(text: str) -> Iterator[Sample]:
    """Yield the samples of an exposition.

    Raises:
        ParseError: a line is none of the format.
    """
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield _sample(line.strip())


def _sample(line: str) -> Sample:
    match = _LINE.fullmatch(line)
    wrong = ParseError("not a line of Prometheus' text format", source="exposition", text=line)
    if match is None:
        raise wrong
    labels = {name: _plain(value) for name, value in _LABEL.findall(match["labels"] or "")}
    try:
        return Sample(match["name"], labels, float(match["value"]), _time_ns(match["time"]))
    except ValueError as error:
        raise wrong from error


def _plain(value: str) -> str:
    return _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], value)


def _time_ns(text: str | None) -> int | None:
    if text is None:
        return None
    number = float(text)
    return round(number * (1e6 if number > _MILLISECONDS_FROM else 1e9))
