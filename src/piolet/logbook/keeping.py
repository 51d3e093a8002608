"""Looking after logbooks: listing, verifying, merging, exporting, removing."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import duckdb

from piolet.core.errors import ParseError, Refused, UsageError, storage_errors
from piolet.core.files import replacing
from piolet.logbook import merging, segments
from piolet.logbook.layout import Logbook
from piolet.logbook.reader import read, rereading
from piolet.logbook.records import RUNNING, JobRecord, read_job, read_outcome, state
from piolet.logbook.schema import FAMILIES

_BATCH_ROWS = 100_000


class ExportFormat(StrEnum):
    """What a family can be written as."""

    PARQUET = "parquet"
    CSV = "csv"
    ARROW = "arrow"


@dataclass(frozen=True, slots=True)
class Book:
    """A logbook in a list; `job` is None if job.json cannot be read."""

    logbook: Logbook
    job: JobRecord | None
    size_bytes: int
    segments: int


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of a logbook that cannot be read, and why."""

    path: Path
    reason: str


def books(root: Path, cluster: str = "") -> list[Book]:
    """Return the logbooks below `root`, oldest first; those without a readable job.json at the end."""
    found = [_book(Logbook(path.parent)) for path in root.glob(f"{cluster or '*'}/*/job.json")]
    return sorted(found, key=lambda book: (book.job is None, book.job.started_ns or 0 if book.job else 0))


def _book(logbook: Logbook) -> Book:
    try:
        job = read_job(logbook.job)
    except ParseError:
        job = None
    files = [path for path in logbook.path.rglob("*") if path.is_file()]
    count = sum(path.parent.name in FAMILIES and segments.parse(path) is not None for path in files)
    return Book(logbook, job, sum(path.stat().st_size for path in files), count)


def verify(logbook: Logbook) -> list[Damage]:
    """Read every value of every segment and the JSON records; return what cannot be read."""
    found = []
    for reading in (lambda: read_job(logbook.job), lambda: read_outcome(logbook.outcome)):
        try:
            reading()
        except ParseError as error:
            found.append(Damage(Path(error.source), error.what))
    with merging.connect() as database:
        for name in FAMILIES:
            for each in segments.all_segments(logbook.family(name)):
                found += _unreadable(database, each.path)
    return found


def _unreadable(database: duckdb.DuckDBPyConnection, path: Path) -> list[Damage]:
    try:
        database.execute("SELECT count(COLUMNS(*)) FROM read_parquet(?)", [str(path)]).fetchall()
    except duckdb.Error as error:
        return [Damage(path, str(error).partition("\n")[0])]
    return []


def compact(logbook: Logbook) -> list[Path]:
    """Merge the segments of every node; return those that were written.

    Raises:
        Refused: the job still runs, and its recorders merge themselves.
    """
    ended(logbook, "merge")
    nodes = {each.node for name in FAMILIES for each in segments.all_segments(logbook.family(name))}
    return [path for node in sorted(nodes) for path in merging.merge_node(logbook, node)]


@rereading
def export(logbook: Logbook, directory: Path, form: ExportFormat) -> list[Path]:
    """Write each family that has rows as one file in `directory`, columns as documented; return the files.

    Raises:
        UsageError: one of the files is there already; nothing is written.
        StorageError: the file system refused.
    """
    with read(logbook) as reader:
        kept = [name for name in FAMILIES if reader.database.table(name).limit(1).fetchall()]
        paths = {name: directory / f"{name}.{form}" for name in kept}
        for path in paths.values():
            if path.exists():
                raise UsageError("the file is there already", where=str(path), remedy="choose another directory")
        for name, path in paths.items():
            query = f'SELECT * FROM "{name}" ORDER BY {", ".join(FAMILIES[name].key)}'  # noqa: S608 - known families
            with replacing(path) as partial:
                if form is ExportFormat.ARROW:
                    _write_arrow(reader.database.sql(query), partial)
                else:
                    reader.database.execute(f"COPY ({query}) TO {merging.quoted(partial)} (FORMAT {form})")
    return list(paths.values())


def _write_arrow(rows: duckdb.DuckDBPyRelation, path: Path) -> None:
    """Write rows as an Arrow IPC file, batch by batch."""
    import pyarrow as pa  # noqa: PLC0415 - of the extra `frames`, and slow to import

    batches = rows.to_arrow_reader(_BATCH_ROWS)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batches.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def remove(logbooks: Sequence[Logbook], *, dry_run: bool = False) -> None:
    """Remove whole logbooks; `dry_run` only finds out whether they may be removed.

    Raises:
        Refused: one of the jobs still runs; none is removed.
        StorageError: the file system refused.
    """
    for logbook in logbooks:
        ended(logbook, "remove")
    for logbook in () if dry_run else logbooks:
        with storage_errors(logbook.path, "remove the logbook"):
            shutil.rmtree(logbook.path)


def ended(logbook: Logbook, doing: str) -> None:
    """Raise Refused if the job still runs; one whose job.json is torn is nobody's any more."""
    try:
        running = state(read_job(logbook.job), read_outcome(logbook.outcome)) == RUNNING
    except ParseError:
        return
    if running:
        raise Refused(
            f"this job has not ended: it is too early to {doing} its logbook",
            where=str(logbook.path),
            remedy="wait for its end; if it was killed, put its state into outcome.json",
        )
