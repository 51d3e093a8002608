"""Segments: immutable Parquet files, one writer a node, named so that nobody needs a lock.

A flush writes ``<node>-<sequence>.parquet``; merging the segments a..b of a node writes ``<node>-<a>+<b>.parquet`` and
then removes what it covers. A reader that finds both takes the merged one, so a kill between the two loses nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"(?P<node>.+)-(?P<first>\d{6,})(?:\+(?P<last>\d{6,}))?\.parquet")
_MAGIC = b"PAR1"
_SMALLEST_PARQUET = 12


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """A segment file of `node`, holding the flushes `first`..`last`."""

    node: str
    first: int
    last: int
    path: Path

    def covers(self, other: Segment) -> bool:
        """Return whether every row of `other` is in this segment too."""
        return self != other and self.node == other.node and self.first <= other.first and other.last <= self.last

    def intact(self) -> bool:
        """Return whether the file begins and ends as Parquet does; a torn or empty file does not."""
        try:
            with self.path.open("rb") as file:
                head = file.read(len(_MAGIC))
                size = file.seek(0, 2)
                file.seek(max(size - len(_MAGIC), 0))
                return head == _MAGIC == file.read() and size >= _SMALLEST_PARQUET
        except OSError:
            return False


def name(node: str, first: int, last: int) -> str:
    """Return the file name of a segment."""
    merged = "" if first == last else f"+{last:06d}"
    return f"{node}-{first:06d}{merged}.parquet"


def parse(path: Path) -> Segment | None:
    """Return the segment that a file name tells of, or None for any other file."""
    match = _NAME.fullmatch(path.name)
    if not match or path.name.startswith("."):
        return None
    first = int(match["first"])
    return Segment(match["node"], first, int(match["last"] or first), path)


def list_segments(directory: Path, nodes: Collection[str] = ()) -> list[Segment]:
    """Return the segments of a family (of `nodes`) in order, without those that an intact merged one covers."""
    found = [each for each in all_segments(directory) if not nodes or each.node in nodes]
    merged: dict[str, list[Segment]] = {}
    for segment in found:
        if segment.first != segment.last and segment.intact():
            merged.setdefault(segment.node, []).append(segment)
    return [each for each in found if not any(other.covers(each) for other in merged.get(each.node, ()))]


def all_segments(directory: Path) -> list[Segment]:
    """Return every segment of a family in order, those that a merged one covers too."""
    return sorted(segment for path in directory.glob("*.parquet") if (segment := parse(path)))


def next_sequence(segments: Iterable[Segment], node: str) -> int:
    """Return the sequence number of the next flush of `node`."""
    return max((segment.last for segment in segments if segment.node == node), default=0) + 1
