"""Merging the segments of a node: fewer files, sorted by device and time, so that equal things stand together.

``python -m piolet.logbook.merging LOGBOOK NODE [--new]`` is what the recorder starts, so that DuckDB's memory is
needed for a moment and not for the length of a job.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import duckdb

from piolet.core.errors import PioletError, StorageError, storage_errors
from piolet.core.files import replacing
from piolet.logbook import segments
from piolet.logbook.layout import Logbook
from piolet.logbook.schema import FAMILIES, VERSION, Family
from piolet.logbook.segments import Segment

NEW = "--new"
MOST_BYTES = 16 << 20
"""A merged segment stays about this small, some days of a node at 1 Hz, so that merging needs little memory."""

_FORMAT = (
    "FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd, COMPRESSION_LEVEL 15, "
    "DICTIONARY_SIZE_LIMIT 16, WRITE_BLOOM_FILTER false"
)
"""A dictionary of more words costs more than the bytes of floats side by side; nobody looks for a single value."""


def merge_node(logbook: Logbook, node: str, *, new: bool = False) -> list[Path]:
    """Merge the segments of `node` in every family, `new` only those that were never merged; return those written.

    Raises:
        StorageError: the file system refused; every row is still in some segment.
    """
    with connect() as database:
        return [
            path
            for family in FAMILIES.values()
            for path in merge(database, logbook.family(family.name), family, node, new=new)
        ]


def connect() -> duckdb.DuckDBPyConnection:
    """Open a database in memory that stays small and leaves no file behind."""
    return duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "512MB", "temp_directory": ""})


def merge(
    database: duckdb.DuckDBPyConnection, directory: Path, family: Family, node: str, *, new: bool = False
) -> list[Path]:
    """Merge the intact segments of `node` and remove what they cover; return the merged segments that were written.

    Of `new` ones, those that this merge covers stay until the next: whoever is reading them reads on. A torn segment is
    never covered, so that a reader still sees that something is missing there.

    Raises:
        StorageError: the file system refused; every row is still in some segment.
    """
    covered = _covered(directory, node)
    runs = _runs(segments.list_segments(directory), node, new=new)
    written = [_merge_run(database, directory, family, run) for run in runs if len(run) > 1]
    for path in covered if new else _covered(directory, node):
        with storage_errors(path, "remove a merged segment"):
            path.unlink(missing_ok=True)
    return written


def _covered(directory: Path, node: str) -> list[Path]:
    """Return the segments of a node all of whose rows are in a merged one."""
    kept = set(segments.list_segments(directory))
    return [each.path for each in segments.all_segments(directory) if each.node == node and each not in kept]


def _runs(found: Iterable[Segment], node: str, *, new: bool) -> Iterator[list[Segment]]:
    """Yield stretches of intact segments of `node`, broken off at a torn one and where they become too large."""
    mine = [each for each in found if each.node == node]
    for fit, run in itertools.groupby(mine, key=lambda each: each.intact() and not (new and each.first != each.last)):
        if fit:
            yield from _small_enough(run)


def _small_enough(run: Iterable[Segment]) -> Iterator[list[Segment]]:
    part: list[Segment] = []
    size = 0
    for each in run:
        size += each.path.stat().st_size
        if part and size > MOST_BYTES:
            yield part
            part, size = [], each.path.stat().st_size
        part.append(each)
    yield part


def _merge_run(database: duckdb.DuckDBPyConnection, directory: Path, family: Family, run: Sequence[Segment]) -> Path:
    path = directory / segments.name(run[0].node, run[0].first, run[-1].last)
    files = ", ".join(quoted(each.path) for each in run)
    rows = f"FROM read_parquet([{files}], union_by_name = true)"
    columns = ", ".join(f'"{name}"' for name in _told(database, rows, family))
    copy(database, f"SELECT {columns} {rows} ORDER BY {', '.join(family.order)}", path)
    return path


def _told(database: duckdb.DuckDBPyConnection, rows: str, family: Family) -> list[str]:
    """Return the key and the columns that have any value: a reader gives null for what a segment lacks."""
    counted = database.execute(f"SELECT count(COLUMNS(*)) {rows}")
    counts = dict(zip([name for name, *_ in counted.description or ()], counted.fetchall()[0], strict=True))
    return [name for name, count in counts.items() if count or name in family.key]


def copy(database: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """Write the rows of `query` as one segment at `path`.

    Raises:
        StorageError: the file system refused; there is no new file.
    """
    with replacing(path) as partial:
        try:
            database.execute(
                f"COPY ({query}) TO {quoted(partial)} ({_FORMAT}, KV_METADATA {{piolet_schema: '{VERSION}'}})"
            )
        except duckdb.IOException as error:
            raise StorageError(
                f"cannot write a segment: {error}", where=str(path), remedy="free space or quota there, then try again"
            ) from error


def quoted(path: Path) -> str:
    """Return a path as an SQL string."""
    return "'" + str(path).replace("'", "''") + "'"


def main(logbook: str, node: str, *options: str) -> int:
    """Merge as the command line says; return the exit status."""
    try:
        merge_node(Logbook(Path(logbook)), node, new=NEW in options)
    except PioletError as error:
        sys.stderr.write(f"piolet: {error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
