"""Reading a logbook with DuckDB: one view a family over its segments.

Torn segments are left out and named, never a crash; a family that nobody recorded is an empty view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import duckdb

from piolet.logbook import ownership, segments
from piolet.logbook.layout import Logbook
from piolet.logbook.schema import FAMILIES, Family


@dataclass(frozen=True, slots=True)
class Reader:
    """An open logbook: `database` has a view a family, over `paths`; `torn` are unreadable segments."""

    logbook: Logbook
    database: duckdb.DuckDBPyConnection
    torn: tuple[Path, ...]
    paths: tuple[Path, ...] = ()

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(logbook: Logbook, *, owner: int | None = None, config: Mapping[str, Any] | None = None) -> Reader:
    """Open the segments of `logbook` as they are now.

    With `owner`, a user id, files that are not the logbook's own count as torn (see ownership). `config` is DuckDB's.
    """
    database = duckdb.connect(":memory:", config=dict(config or {}))
    torn: list[Path] = []
    paths: list[Path] = []
    for family in FAMILIES.values():
        found = segments.list_segments(logbook.family(family.name))
        intact = [segment.path for segment in found if segment.intact()]
        own = intact if owner is None else ownership.own_files(logbook, intact, owner)
        unreadable = _view_of_readable(database, family, own)
        readable = set(own) - set(unreadable)
        paths += sorted(readable)
        torn += [segment.path for segment in found if segment.path not in readable]
    return Reader(logbook, database, tuple(torn), tuple(paths))


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
