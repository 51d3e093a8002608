"""What a walk counts. Of a fixed size, however many files there are; adding tallies is associative."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SIZE_CLASSES = 48
"""Class n holds files of less than 2**n bytes that are not in class n-1; the last one holds all larger ones."""

IDLE_DAYS = 400
"""Files are counted by whole days since their last use; the last day holds all older ones."""

SMALL_CLASS = 20
"""Files of less than 2**20 bytes are small: less than one Lustre stripe, one request to the server for each."""

_LARGEST, _EXAMPLES, _PLACES = 50, 20, 2000


@dataclass(slots=True)
class Tally:
    """Counts of one walk.

    `inodes` and `used_bytes` count a file with several names once (a share for each name), as quotas do. `idle` and
    `idle_bytes` are by days since last use, `kinds` by file name ending [files, bytes], `places` by directory near the
    top [files, bytes, small files]. `largest`, `leftovers` and `unreadable` are examples, beside their numbers.
    """

    files: int = 0
    directories: int = 0
    others: int = 0
    size_bytes: int = 0
    used_bytes: float = 0
    inodes: float = 0
    small: int = 0
    sizes: list[int] = field(default_factory=lambda: [0] * SIZE_CLASSES)
    idle: list[int] = field(default_factory=lambda: [0] * IDLE_DAYS)
    idle_bytes: list[int] = field(default_factory=lambda: [0] * IDLE_DAYS)
    kinds: dict[str, list[int]] = field(default_factory=dict)
    places: dict[str, list[int]] = field(default_factory=dict)
    largest: list[tuple[int, str]] = field(default_factory=list)
    leftovers: list[tuple[int, str]] = field(default_factory=list)
    leftover_files: int = 0
    leftover_bytes: int = 0
    unreadable: list[str] = field(default_factory=list)
    unreadable_count: int = 0

    def add(self, other: Tally) -> None:
        """Add the counts of another part of the same walk."""
        for name in ("files", "directories", "others", "small", "size_bytes", "used_bytes", "inodes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("leftover_files", "leftover_bytes", "unreadable_count"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("sizes", "idle", "idle_bytes"):
            setattr(self, name, [mine + theirs for mine, theirs in zip(*_both(self, other, name), strict=True)])
        _merge(self.kinds, other.kinds)
        _merge(self.places, other.places, most=_PLACES)
        self.largest = heapq.nlargest(_LARGEST, [*self.largest, *other.largest])
        self.leftovers = heapq.nlargest(_EXAMPLES, [*self.leftovers, *other.leftovers])
        self.unreadable = sorted([*self.unreadable, *other.unreadable])[:_EXAMPLES]

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tally:
        """Return the tally that `to_json` wrote; TypeError if it is not one."""
        pairs = {name: [(size, path) for size, path in values[name]] for name in ("largest", "leftovers")}
        return cls(**(dict(values) | pairs))


def _both(one: Tally, two: Tally, name: str) -> Iterable[list[int]]:
    return getattr(one, name), getattr(two, name)


def _merge(into: dict[str, list[int]], other: Mapping[str, list[int]], most: int | None = None) -> None:
    """Add rows by name; over `most` names, new ones go to the row of the rest (the empty name)."""
    for name, row in other.items():
        key = name if most is None or name in into or len(into) < most else ""
        kept = into.setdefault(key, [0] * len(row))
        into[key] = [mine + theirs for mine, theirs in zip(kept, row, strict=True)]
