"""The unit of a column. Units are SI and stand at the end of the column's name."""

from __future__ import annotations

_ENDINGS = {
    "_bytes_per_s": "B/s",
    "_per_s": "1/s",
    "_bytes": "B",
    "_ratio": "1",
    "_ns": "ns",
    "_hz": "Hz",
    "_ms": "ms",
    "_s": "s",
    "_w": "W",
    "_j": "J",
    "_c": "°C",
}


def unit(column: str) -> str:
    """Return the unit of a column, empty for a count, a name or a value in the program's own unit."""
    return _ENDINGS.get(ending(column), "")


def ending(column: str) -> str:
    """Return the end of a column's name that says its unit, empty if none does."""
    return next((each for each in _ENDINGS if column.endswith(each)), "")
