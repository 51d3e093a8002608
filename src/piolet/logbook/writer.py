"""Writing samples: rows gather in memory, a flush writes one segment a family under its final name at once.

Loads nothing heavy, for the recorder runs beside the program; piolet.logbook.merging loads DuckDB, and then ends.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from piolet.core.errors import StorageError
from piolet.core.files import replacing
from piolet.core.redact import redacted
from piolet.logbook import parquet, segments
from piolet.logbook.layout import Logbook
from piolet.logbook.schema import FAMILIES, SIGNIFICANT_BITS, VERSION, Column, Family

Row = Mapping[str, Any]

MAX_PENDING_ROWS = 10_000
"""Rows of a family that wait in memory while the file system refuses writes; older ones are dropped, and counted."""


class SegmentWriter:
    """Writes the samples of one node into a logbook. Not thread-safe; one per node and process."""

    def __init__(self, logbook: Logbook, node: str) -> None:
        self._logbook = logbook
        self._node = node
        self._pending: dict[str, deque[list[Any]]] = {}
        self._next: dict[str, int] = {}
        self.dropped_rows = 0

    def append(self, family: str, row: Row) -> None:
        """Add a row, keyed by column name; columns left out are null, and secrets in events are redacted.

        Unknown columns are a KeyError.
        """
        columns = FAMILIES[family].columns
        unknown = row.keys() - set(FAMILIES[family].names)
        if unknown:
            raise KeyError(f"{family} has no column {', '.join(sorted(unknown))}")
        if family == "events":
            row = redacted(row)
        rows = self._pending.setdefault(family, deque(maxlen=MAX_PENDING_ROWS))
        self.dropped_rows += len(rows) == rows.maxlen
        rows.append([rounded(column, row.get(column.name)) for column in columns])

    def flush(self) -> list[Path]:
        """Write what is pending and return the new segments.

        Raises:
            StorageError: the file system refused; the rows stay pending and the next flush tries again.
        """
        written = []
        for family, rows in self._pending.items():
            if rows:
                written.append(self._write(FAMILIES[family], rows))
                rows.clear()
        return written

    def close(self) -> None:
        """Flush, then merge this node's segments of each family in this process; see merging.merge_node.

        Raises:
            StorageError: the file system refused; the segments that were written before stay as they are.
        """
        from piolet.logbook import merging  # noqa: PLC0415 - loads DuckDB

        self.flush()
        merging.merge_node(self._logbook, self._node)

    def _write(self, family: Family, rows: Sequence[list[Any]]) -> Path:
        if not self._logbook.path.is_dir():  # an unmounted file system: its mount point is not the place to write to
            raise StorageError(
                "the logbook is gone", where=str(self._logbook.path), remedy="mount the file system that holds it"
            )
        number = self._sequence(family)
        path = self._logbook.family(family.name) / segments.name(self._node, number, number)
        with replacing(path) as partial:
            partial.write_bytes(parquet.encode(family, rows, {"piolet_schema": str(VERSION)}))
        self._next[family.name] = number + 1
        return path

    def _sequence(self, family: Family) -> int:
        """Return the number of the next segment; the directory is listed once, for one writer owns the node's names."""
        if family.name not in self._next:
            found = segments.all_segments(self._logbook.family(family.name))
            self._next[family.name] = segments.next_sequence(found, self._node)
        return self._next[family.name]


_LARGEST = {"INTEGER": 2**31 - 1, "BIGINT": 2**63 - 1, "FLOAT": 3.4e38, "DOUBLE": 1e300}


def rounded(column: Column, value: Any) -> Any:  # noqa: ANN401 - columns have many types
    """Return `value` as its column resolves it; NaN and what its type cannot hold are missing values."""
    if column.kind not in _LARGEST:
        return value
    if not isinstance(value, int | float) or not abs(value) <= _LARGEST[column.kind]:
        return None
    step = column.resolution
    if column.kind == "FLOAT":
        step = max(step, math.ldexp(1.0, math.frexp(value)[1] - SIGNIFICANT_BITS))
    steps = round(value / step) * step if step else value
    return steps if column.kind in {"FLOAT", "DOUBLE"} else round(steps)
