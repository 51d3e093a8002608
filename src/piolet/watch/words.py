"""Evidence and data quality in words, the same in the terminal and on pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from piolet.core.text import plural
from piolet.logbook.records import Evidence
from piolet.watch.quality import DataQuality


def fact(told: Evidence) -> str:
    """Return a fact as ``SM clock: 9.9e+08 Hz, expected 1.98e+09``."""
    against = f", expected {_number(told.expected)}" if told.expected is not None else ""
    return f"{told.what}: {_number(told.value)} {told.unit}".rstrip() + against


def shares(coverage: Mapping[str, float]) -> str:
    """Return coverage as ``gpu 98.2%, host 100.0%``; empty if nobody knows what to expect."""
    return ", ".join(f"{name} {share:.1%}" for name, share in coverage.items())


def troubles(found: DataQuality) -> Iterator[str]:
    """Yield what is wrong with the data, beside holes: a sentence each."""
    yield from (f"{node}: recorder restarted {plural(count, 'time')}" for node, count in found.restarts.items())
    yield from (f"{node}: clock {offset:+.6f} s" for node, offset in found.clock_offset_s.items())
    yield from (
        f"{family}: {plural(count, 'blank')} in {', '.join(columns)}"
        for (family, count), columns in _alike(found.blanks)
    )
    for (node, device, name), count in found.resets.items():
        yield f"{node}:{device} {name} fell {plural(count, 'time')}"
    yield from (f"{node}: {source} not available: {why}" for node, source, why in found.unavailable)
    if found.not_applicable:
        yield f"not applicable: {', '.join(found.not_applicable)}"
    yield from (f"unreadable: {path}" for path in found.torn)
    if found.dropped_rows:
        yield f"{plural(found.dropped_rows, 'row')} dropped by the recorder"


def _alike(blanks: Mapping[tuple[str, str], int]) -> Iterable[tuple[tuple[str, int], list[str]]]:
    """Return the columns of a family that have equally many blanks together: most often they are of one source."""
    columns: dict[tuple[str, int], list[str]] = {}
    for (family, column), count in blanks.items():
        columns.setdefault((family, count), []).append(column)
    return columns.items()


def never(found: DataQuality) -> str:
    """Return what was never collected."""
    return ", ".join(".".join(each).rstrip(".") for each in found.never) or "nothing"


def _number(value: float | str | None) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)
