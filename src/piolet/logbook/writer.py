"""Writing samples: rows gather in memory, a flush writes one segment a family under its final name at once."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from piolet.core.errors import StorageError, storage_errors
from piolet.core.files import replacing
from piolet.core.redact import redacted
from piolet.logbook import segments
from piolet.logbook.layout import Logbook
from piolet.logbook.schema import FAMILIES, VERSION, Column, Family
from piolet.logbook.segments import Segment

Row = Mapping[str, Any]

MAX_PENDING_ROWS = 10_000
"""Rows of a family that wait in memory while the file system refuses writes; older ones are dropped, and counted."""

_ROWS_PER_INSERT = 500


class SegmentWriter:
    """Writes the samples of one node into a logbook. Not thread-safe; one per node and process."""

    def __init__(self, logbook: Logbook, node: str) -> None:
        self._logbook = logbook
        self._node = node
        self._pending: dict[str, deque[list[Any]]] = {}
        self._next: dict[str, int] = {}
        self._database = connect()
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
        """Flush, then merge this node's segments of each family into one.

        Raises:
            StorageError: the file system refused; the segments that were written before stay as they are.
        """
        try:
            self.flush()
            for family in FAMILIES.values():
                merge(self._database, self._logbook.family(family.name), family, self._node)
        finally:
            self._database.close()

    def _write(self, family: Family, rows: Iterable[list[Any]]) -> Path:
        if not self._logbook.path.is_dir():  # an unmounted file system: its mount point is not the place to write to
            raise StorageError(
                "the logbook is gone", where=str(self._logbook.path), remedy="mount the file system that holds it"
            )
        number = self._sequence(family)
        path = self._logbook.family(family.name) / segments.name(self._node, number, number)
        self._database.execute(f"CREATE OR REPLACE TEMP TABLE pending ({_declared(family)})")
        remaining = iter(rows)
        while chunk := list(itertools.islice(remaining, _ROWS_PER_INSERT)):
            marks = ", ".join(f"({', '.join('?' * len(family.columns))})" for _ in chunk)
            self._database.execute(
                f"INSERT INTO pending VALUES {marks}",  # noqa: S608 - only placeholders
                [value for row in chunk for value in row],
            )
        _copy(self._database, "FROM pending", path)
        self._next[family.name] = number + 1
        return path

    def _sequence(self, family: Family) -> int:
        """Return the number of the next segment; the directory is listed once, for one writer owns the node's names."""
        if family.name not in self._next:
            found = segments.all_segments(self._logbook.family(family.name))
            self._next[family.name] = segments.next_sequence(found, self._node)
        return self._next[family.name]


def connect() -> duckdb.DuckDBPyConnection:
    """Open a database in memory that stays small and leaves no file behind."""
    return duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "256MB", "temp_directory": ""})


def merge(database: duckdb.DuckDBPyConnection, directory: Path, family: Family, node: str) -> list[Path]:
    """Merge the intact segments of `node` and remove what they cover; return the merged segments that were written.

    A torn segment is never covered, so that a reader still sees that something is missing there.

    Raises:
        StorageError: the file system refused; every row is still in some segment.
    """
    runs = _intact_runs(segments.list_segments(directory), node)
    written = [_merge_run(database, directory, family, run) for run in runs if len(run) > 1]
    kept = set(segments.list_segments(directory))
    for each in segments.all_segments(directory):
        if each.node == node and each not in kept:
            with storage_errors(each.path, "remove a merged segment"):
                each.path.unlink(missing_ok=True)
    return written


def _intact_runs(found: Iterable[Segment], node: str) -> list[list[Segment]]:
    """Return the longest stretches of intact segments of `node`, each broken off at a torn one."""
    mine = [each for each in found if each.node == node]
    return [list(run) for intact, run in itertools.groupby(mine, key=Segment.intact) if intact]


def _merge_run(database: duckdb.DuckDBPyConnection, directory: Path, family: Family, run: Sequence[Segment]) -> Path:
    path = directory / segments.name(run[0].node, run[0].first, run[-1].last)
    files = ", ".join(_quoted(each.path) for each in run)
    _copy(
        database,
        f"SELECT * FROM read_parquet([{files}], union_by_name = true) ORDER BY {', '.join(family.key)}",  # noqa: S608 - quoted paths, known keys
        path,
    )
    return path


_LARGEST = {"INTEGER": 2**31 - 1, "BIGINT": 2**63 - 1, "FLOAT": 3.4e38, "DOUBLE": 1e300}


def rounded(column: Column, value: Any) -> Any:  # noqa: ANN401 - columns have many types
    """Return `value` rounded to the column's resolution; NaN and what its type cannot hold are missing values."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    if not abs(value) <= _LARGEST.get(column.kind, math.inf):
        return None
    if not column.resolution:
        return value
    steps = round(value / column.resolution)
    return int(steps * column.resolution) if column.kind == "BIGINT" else steps * column.resolution


def _copy(database: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    with replacing(path) as partial:
        try:
            database.execute(
                f"COPY ({query}) TO {_quoted(partial)} "
                f"(FORMAT parquet, COMPRESSION zstd, KV_METADATA {{piolet_schema: '{VERSION}'}})"
            )
        except duckdb.IOException as error:
            raise StorageError(
                f"cannot write a segment: {error}",
                where=str(path),
                remedy="free space or quota there; the recorder tries again",
            ) from error


def _declared(family: Family) -> str:
    return ", ".join(f"{column.name} {column.kind}" for column in family.columns)


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
