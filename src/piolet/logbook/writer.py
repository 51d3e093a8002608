"""Writing samples: rows gather in memory, a flush writes one segment a family under its final name at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from piolet.core.errors import StorageError
from piolet.core.files import replacing
from piolet.logbook import segments
from piolet.logbook.layout import Logbook
from piolet.logbook.schema import FAMILIES, VERSION, Column, Family

Row = Mapping[str, Any]

MAX_PENDING_ROWS = 100_000
"""Rows of a family that wait in memory while the file system refuses writes; older ones are dropped, and counted."""


class SegmentWriter:
    """Writes the samples of one node into a logbook. Not thread-safe; one per node and process."""

    def __init__(self, logbook: Logbook, node: str) -> None:
        self._logbook = logbook
        self._node = node
        self._pending: dict[str, list[Row]] = {}
        self._database = duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "256MB"})
        self.dropped_rows = 0

    def append(self, family: str, row: Row) -> None:
        """Add a row, keyed by column name; columns left out are null. Unknown columns are a KeyError."""
        unknown = row.keys() - set(FAMILIES[family].names)
        if unknown:
            raise KeyError(f"{family} has no column {', '.join(sorted(unknown))}")
        rows = self._pending.setdefault(family, [])
        rows.append(row)
        if len(rows) > MAX_PENDING_ROWS:
            self.dropped_rows += 1
            del rows[0]

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
        """Flush, then merge this node's segments of each family into one."""
        self.flush()
        for family in FAMILIES.values():
            merge(self._database, self._logbook.family(family.name), family, self._node)
        self._database.close()

    def _write(self, family: Family, rows: Sequence[Row]) -> Path:
        directory = self._logbook.family(family.name)
        number = segments.next_sequence(segments.list_segments(directory), self._node)
        path = directory / segments.name(self._node, number, number)
        values = [[rounded(column, row.get(column.name)) for column in family.columns] for row in rows]
        self._database.execute(f"CREATE OR REPLACE TEMP TABLE pending ({_declared(family)})")
        marks = ", ".join(f"({', '.join('?' * len(family.columns))})" for _ in values)
        self._database.execute(
            f"INSERT INTO pending VALUES {marks}",  # noqa: S608 - only placeholders
            [value for row in values for value in row],
        )
        _copy(self._database, "FROM pending", path)
        return path


def merge(database: duckdb.DuckDBPyConnection, directory: Path, family: Family, node: str) -> Path | None:
    """Merge the intact segments of `node` into one and remove them; None if there was nothing to merge."""
    old = [each for each in segments.list_segments(directory) if each.node == node and each.intact()]
    if len(old) < 2:  # noqa: PLR2004 - one segment is merged already
        return None
    path = directory / segments.name(node, old[0].first, old[-1].last)
    files = ", ".join(_quoted(each.path) for each in old)
    _copy(
        database,
        f"SELECT * FROM read_parquet([{files}], union_by_name = true) ORDER BY {', '.join(family.key)}",  # noqa: S608 - quoted paths, known keys
        path,
    )
    for each in old:
        each.path.unlink(missing_ok=True)
    return path


def rounded(column: Column, value: Any) -> Any:  # noqa: ANN401 - columns have many types
    """Return `value` rounded to the column's resolution; NaN and infinities are missing values."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    if not math.isfinite(value):
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
