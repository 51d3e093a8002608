"""Reading a logbook with DuckDB: one view a family over its segments.

Torn segments are left out and named, never a crash; a family that nobody recorded is an empty view.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import duckdb

from piolet.logbook import segments
from piolet.logbook.layout import Logbook
from piolet.logbook.schema import FAMILIES, Family


@dataclass(frozen=True, slots=True)
class Reader:
    """An open logbook: `database` has the views gpu, host, user and events; `torn` are unreadable segments."""

    logbook: Logbook
    database: duckdb.DuckDBPyConnection
    torn: tuple[Path, ...]

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(logbook: Logbook) -> Reader:
    """Open the segments of `logbook` as they are now."""
    database = duckdb.connect(":memory:")
    torn: list[Path] = []
    for family in FAMILIES.values():
        found = segments.list_segments(logbook.family(family.name))
        intact = [segment.path for segment in found if segment.intact()]
        torn += [segment.path for segment in found if segment.path not in intact]
        torn += _view_of_readable(database, family, intact)
    return Reader(logbook, database, tuple(torn))


def _view_of_readable(database: duckdb.DuckDBPyConnection, family: Family, paths: list[Path]) -> list[Path]:
    """Make the view; if DuckDB refuses a file, leave out those whose metadata it cannot read, and return them."""
    try:
        _view(database, family, paths)
    except duckdb.Error:
        readable = [path for path in paths if _has_metadata(database, path)]
        _view(database, family, readable)
        return [path for path in paths if path not in readable]
    return []


def _has_metadata(database: duckdb.DuckDBPyConnection, path: Path) -> bool:
    try:
        database.execute("SELECT count(*) FROM parquet_schema(?)", [str(path)]).fetchall()
    except duckdb.Error:
        return False
    return True


def _view(database: duckdb.DuckDBPyConnection, family: Family, paths: list[Path]) -> None:
    name = _identifier(family.name)
    columns = ", ".join(f"NULL::{column.kind} AS {_identifier(column.name)}" for column in family.columns)
    empty = f"SELECT {columns} WHERE false"
    if not paths:
        database.execute(f"CREATE VIEW {name} AS {empty}")
        return
    files = ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths)
    database.execute(
        f"CREATE VIEW {name} AS {empty} UNION ALL BY NAME "  # noqa: S608 - quoted paths, known columns
        f"SELECT * FROM read_parquet([{files}], union_by_name = true)"
    )


def _identifier(name: str) -> str:
    return f'"{name}"'
