"""Bringing a logbook that an older version wrote to the schema of this one, in place: each file is replaced whole.

Piolet itself reads old logbooks as they are. This is for those who read the files without it: every segment then has
every column, null where it was not recorded, and every record every field.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import duckdb

from piolet.core.errors import ParseError, Refused
from piolet.core.files import read_json, write_json
from piolet.core.redact import redacted
from piolet.logbook import keeping, merging, records, segments
from piolet.logbook.layout import Logbook
from piolet.logbook.schema import FAMILIES, VERSION, Family


@dataclass(frozen=True, slots=True)
class _Old:
    """A file that is not as this version writes it, and how it is brought there."""

    path: Path
    replace: Callable[[], object]


def upgrade(logbook: Logbook, *, dry_run: bool = False) -> list[Path]:
    """Rewrite what an older version wrote and return those files; `dry_run` only finds them.

    What was killed on the way goes on where it stopped. Rows, values and the names of files stay as they are.

    Raises:
        Refused: the job still runs, or a newer version wrote the logbook; nothing has changed.
        ParseError: a file cannot be read; nothing has changed.
        StorageError: the file system refused; the rest stays as it was.
    """
    keeping.ended(logbook, "upgrade")
    with merging.connect() as database:
        old = [*_old_records(logbook), *_old_segments(logbook, database)]
        for each in () if dry_run else old:
            each.replace()
    return [each.path for each in old]


def _old_records(logbook: Logbook) -> Iterator[_Old]:
    for path, read in (
        (logbook.job, records.read_job),
        (logbook.outcome, records.read_outcome),
        (logbook.findings, records.read_findings),
    ):
        record = read(path) if path.exists() else None
        if record is None:
            continue
        found, now = read_json(path), json.loads(json.dumps(redacted(asdict(record))))
        known = {each.name: each.default for each in fields(record)}
        if found.get("version", 1) > known["version"] or found.keys() - known.keys():
            raise _newer(path)
        if found != now:
            yield _Old(path, partial(write_json, path, now))


def _old_segments(logbook: Logbook, database: duckdb.DuckDBPyConnection) -> Iterator[_Old]:
    for family in FAMILIES.values():
        for segment in segments.all_segments(logbook.family(family.name)):
            columns, version = _schema(database, segment.path)
            if version > VERSION or columns.keys() - set(family.names):
                raise _newer(segment.path)
            if version < VERSION or columns != {column.name: column.kind for column in family.columns}:
                yield _Old(segment.path, partial(_rewrite, database, family, segment.path))


def _schema(database: duckdb.DuckDBPyConnection, path: Path) -> tuple[dict[str, str], int]:
    """Return the columns of a segment with their types, and the version of its schema."""
    try:
        columns = database.execute("DESCRIBE SELECT * FROM read_parquet(?)", [str(path)]).fetchall()
        [(version,)] = database.execute(
            "SELECT max(decode(value)) FROM parquet_kv_metadata(?) WHERE decode(key) = 'piolet_schema'", [str(path)]
        ).fetchall()
    except duckdb.Error as error:
        reason = str(error).partition("\n")[0]
        raise ParseError(f"this segment cannot be read: {reason}", source=str(path)) from error
    return {name: kind for name, kind, *_ in columns}, int(version or 0)


def _rewrite(database: duckdb.DuckDBPyConnection, family: Family, path: Path) -> None:
    columns = ", ".join(f"NULL::{column.kind} AS {column.name}" for column in family.columns)
    query = f"SELECT {columns} WHERE false UNION ALL BY NAME SELECT * FROM read_parquet({merging.quoted(path)})"  # noqa: S608 - quoted
    merging.copy(database, f"SELECT * FROM ({query}) ORDER BY {', '.join(family.order)}", path)  # noqa: S608 - same


def _newer(path: Path) -> Refused:
    return Refused(
        "a newer version of Piolet wrote this logbook", where=str(path), remedy="upgrade Piolet; this one reads it"
    )
