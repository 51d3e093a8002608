"""Reading a logbook with DuckDB: one view a family over its segments.

Torn segments are left out and named, never a crash; a family that nobody recorded is an empty view. The recorder of a
running job merges segments now and then, and removes what it merged: who reads one does so in a function `@rereading`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

import duckdb

from piolet.logbook import ownership, segments
from piolet.logbook.layout import Logbook
from piolet.logbook.schema import FAMILIES, Family

P = ParamSpec("P")
T = TypeVar("T")


MOST_REREADS = 4
"""Each node's recorder merges every ten minutes: a reader of many nodes may meet several."""


@dataclass(frozen=True, slots=True)
class Reader:
    """An open logbook: `database` has a view a family, over `paths`; `torn` are unreadable segments.

    `owner` is the user whose files alone are read, None for anybody's.
    """

    logbook: Logbook
    database: duckdb.DuckDBPyConnection
    torn: tuple[Path, ...]
    paths: tuple[Path, ...] = ()
    owner: int | None = None

    def own(self, paths: Iterable[Path]) -> list[Path]:
        """Return those of the logbook's `paths` that may be read; see ownership."""
        return list(paths) if self.owner is None else ownership.own_files(self.logbook, paths, self.owner)

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def rereading(use: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function that opens a logbook and reads it: it begins anew when a segment went away meanwhile."""

    @wraps(use)
    def again(*args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(MOST_REREADS):
            with suppress(duckdb.IOException):
                return use(*args, **kwargs)
        return use(*args, **kwargs)

    return again


def read(
    logbook: Logbook,
    *,
    owner: int | None = None,
    config: Mapping[str, Any] | None = None,
    families: Collection[str] = FAMILIES.keys(),
    nodes: Collection[str] = (),
) -> Reader:
    """Open the segments of `logbook` as they are now; of `families` and `nodes` alone, if not of all.

    With `owner`, a user id, files that are not the logbook's own count as torn (see ownership). `config` is DuckDB's.
    """
    reader = Reader(logbook, duckdb.connect(":memory:", config=dict(config or {})), (), (), owner)
    torn: list[Path] = []
    paths: list[Path] = []
    for family in map(FAMILIES.__getitem__, families):
        found, readable = _open(reader, family, nodes)
        if any(not path.exists() for path in found - readable):  # merged between the listing and the reading
            found, readable = _open(reader, family, nodes)
        paths += sorted(readable)
        torn += sorted(found - readable)
    return replace(reader, torn=tuple(torn), paths=tuple(paths))


def _open(reader: Reader, family: Family, nodes: Collection[str]) -> tuple[set[Path], set[Path]]:
    """Make the view of a family; return its segments, and those that can be read."""
    found = segments.list_segments(reader.logbook.family(family.name), nodes)
    own = reader.own(segment.path for segment in found if segment.intact())
    readable = readable_view(reader.database, family, own)
    return {segment.path for segment in found}, set(readable)


def readable_view(database: duckdb.DuckDBPyConnection, family: Family, paths: list[Path]) -> list[Path]:
    """Make the view of a family without the files whose metadata DuckDB cannot read; return the others."""
    try:
        view(database, family, paths)
    except duckdb.Error:
        paths = [path for path in paths if _has_metadata(database, path)]
        view(database, family, paths)
    return paths


def _has_metadata(database: duckdb.DuckDBPyConnection, path: Path) -> bool:
    try:
        database.execute("SELECT count(*) FROM parquet_schema(?)", [str(path)]).fetchall()
    except duckdb.Error:
        return False
    return True


def view(database: duckdb.DuckDBPyConnection, family: Family, paths: Collection[Path]) -> None:
    """Make the view of a family over segments; columns that one of them lacks are null in its rows.

    Segments of the same columns are read as one: DuckDB then opens them when it reads them, and not at every query.
    """
    columns = ", ".join(f"NULL::{column.kind} AS {_identifier(column.name)}" for column in family.columns)
    parts = [
        f"SELECT {columns} WHERE false",
        *(f"SELECT * FROM read_parquet([{each}])" for each in _alike(database, paths)),  # noqa: S608 - quoted
    ]
    database.execute(f"CREATE OR REPLACE VIEW {_identifier(family.name)} AS {' UNION ALL BY NAME '.join(parts)}")


def _alike(database: duckdb.DuckDBPyConnection, paths: Collection[Path]) -> list[str]:
    """Return the files as SQL lists, those with the same columns in one."""
    if not paths:
        return []
    found = database.execute(
        """
        SELECT list(file_name ORDER BY file_name) FROM (
            SELECT file_name, list((name, type) ORDER BY name) AS columns FROM parquet_schema($paths) GROUP BY file_name
        ) GROUP BY columns
        """,
        {"paths": [str(path) for path in paths]},
    ).fetchall()
    return [", ".join("'" + name.replace("'", "''") + "'" for name in names) for (names,) in found]


def _identifier(name: str) -> str:
    return f'"{name}"'
