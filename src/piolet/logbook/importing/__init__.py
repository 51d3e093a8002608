"""Bringing recordings of other tools in: their files become a logbook, as if the recorder had made it.

    imported = bring(paths, root, Given(job_id="4711"))

A tool has a module with `recognises` and `read`. What it does not measure stays null, and metrics that no column is for
are named.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from piolet import __version__
from piolet.core.errors import ParseError, Refused, UsageError, storage_errors
from piolet.core.nouns import Gpu
from piolet.core.text import did_you_mean
from piolet.logbook import layout, merging
from piolet.logbook.importing import clustercockpit, dcgm, gssr, jobstats, omnistat
from piolet.logbook.importing.recording import Entry, Given, Recording, wrong
from piolet.logbook.layout import Logbook
from piolet.logbook.records import JobRecord, NodeAllocation, Outcome, Request, write_job, write_outcome
from piolet.logbook.writer import SegmentWriter

__all__ = ["FORMATS", "Given", "Imported", "bring"]


@dataclass(frozen=True, slots=True)
class Format:
    """How a tool's file is known, by its path and its first few kilobytes, and how it is read."""

    recognises: Callable[[Path, str], bool]
    read: Callable[[Path, Given], Recording]


FORMATS = {
    "gssr": Format(gssr.recognises, gssr.read),
    "jobstats": Format(jobstats.recognises, jobstats.read),
    "clustercockpit": Format(clustercockpit.recognises, clustercockpit.read),
    "omnistat": Format(omnistat.recognises, omnistat.read),
    "dcgmi-dmon": Format(dcgm.recognises_dmon, dcgm.read_dmon),
    "dcgm-exporter": Format(dcgm.recognises_scrape, dcgm.read_scrape),
}

IMPORTED = "imported"
"""The cluster of recordings that do not say theirs."""

_HEAD_BYTES = 8192
_MOST_S = 1e9
_MOST_GPUS = 1 << 16
_FLUSH_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class Imported:
    """What was brought in: the new logbook, how many rows, which tools wrote them, and the metrics left out."""

    logbook: Logbook
    rows: int
    tools: tuple[str, ...]
    left_out: tuple[str, ...]


def bring(paths: Sequence[Path], root: Path, given: Given, form: str = "") -> Imported:
    """Make a logbook below `root` of the recordings at `paths`, files or directories of them, which are of one job.

    `form` is one of FORMATS, or empty to tell each file by its content.

    Raises:
        UsageError: a file is of no format known, or there is none.
        Refused: the job has a logbook already.
        ParseError, StorageError: a file cannot be read, or the logbook not be written; there is no new logbook then.
    """
    recordings = [_read(path, given, form) for path in _files(paths, form)]
    first = recordings[0]
    job_id = given.job_id or next((each.job_id for each in recordings if each.job_id), "") or paths[0].stem
    book = Logbook(root / (given.cluster or first.cluster or IMPORTED) / job_id)
    if book.path.exists():
        raise Refused(
            "this job has a logbook already", where=str(book.path), remedy="give another --job, or remove that"
        )
    with storage_errors(book.path, "create the logbook"):
        book.path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(mkdtemp(prefix=f".{job_id}-", dir=book.path.parent))
    try:
        layout.create(partial.parent.parent, partial.parent.name, partial.name)
        seen = _write(Logbook(partial), recordings)
        write_job(Logbook(partial).job, _job(book, recordings, seen, given))
        write_outcome(Logbook(partial).outcome, Outcome("IMPORTED", 0, ended_ns=_ended_ns(recordings, seen)))
        with storage_errors(book.path, "put the logbook in its place"):
            partial.chmod(0o777 & ~_umask())
            partial.rename(book.path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    left_out = sorted(set().union(*(each.left_out for each in recordings)))
    return Imported(book, seen.rows, tuple(sorted({each.tool for each in recordings})), tuple(left_out))


def _files(paths: Sequence[Path], form: str) -> list[Path]:
    """Return the files to read: those given, and the ones in directories that a format recognises."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError("there is no such file", where=str(path), remedy="give recordings, or a directory of them")
        inside = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
        found += [each for each in inside if not path.is_dir() or _recognised(each, form)]
    if not found:
        where = ", ".join(map(str, paths))
        raise UsageError("no recording of a tool that is known", where=where, remedy=f"known are {', '.join(FORMATS)}")
    return found


def _recognised(path: Path, form: str) -> str:
    """Return the format of a file, empty if it is none that is known (or not `form`)."""
    with storage_errors(path, "read"), path.open("rb") as file:
        head = file.read(_HEAD_BYTES).decode("utf-8", "replace")
    names = (form,) if form else FORMATS
    return next((name for name in names if FORMATS[name].recognises(path, head)), "")


def _read(path: Path, given: Given, form: str) -> Recording:
    if form and form not in FORMATS:
        raise UsageError(f"no format {form}", remedy=did_you_mean(form, FORMATS))
    name = form or _recognised(path, "")
    if not name:
        known = ", ".join(FORMATS)
        raise UsageError(
            "no recording of a tool that is known", where=str(path), remedy=f"say which with --as: {known}"
        )
    with _of_tool(path, name):
        recording = FORMATS[name].read(path, given)
    if not 0 < recording.interval_s < _MOST_S or not _is_time(recording.started_ns) or not _is_time(recording.ended_ns):
        raise wrong(path, f"not a recording of {name}: its times make no sense")
    return replace(recording, rows=_checked(path, name, recording.rows))


@contextmanager
def _of_tool(path: Path, name: str) -> Iterator[None]:
    """Turn what goes wrong in reading a torn or foreign file into the error that names it."""
    try:
        yield
    except ParseError as error:
        if str(path) in error.where:
            raise
        raise wrong(path, error.what) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise wrong(path, f"not a recording of {name}: {error!r}") from error


def _checked(path: Path, name: str, rows: Iterable[Entry]) -> Iterator[Entry]:
    with _of_tool(path, name):
        for family, row in rows:
            known = isinstance(row["node"], str) and 0 <= row.get("gpu", 0) < _MOST_GPUS
            if not known or not _is_time(row["time_ns"]):
                raise wrong(path, f"not a recording of {name}: a sample of no time, node or GPU", str(dict(row)))
            yield family, row


def _is_time(time_ns: int | None) -> bool:
    return time_ns is None or 0 <= time_ns < 1 << 63


@dataclass(slots=True)
class _Seen:
    """What was met while the rows were written: GPUs with their model by node, and the first and last time."""

    rows: int = 0
    gpus: dict[str, dict[int, Gpu]] = field(default_factory=dict)
    first_ns: int | None = None
    last_ns: int | None = None

    def row(self, family: str, row: Mapping[str, Any], model: str) -> Mapping[str, Any]:
        """Take note of a row, and return it with an identity of its GPU, if the tool gave none."""
        self.rows += 1
        time_ns, node = row["time_ns"], row["node"]
        self.first_ns = time_ns if self.first_ns is None else min(self.first_ns, time_ns)
        self.last_ns = time_ns if self.last_ns is None else max(self.last_ns, time_ns)
        gpus = self.gpus.setdefault(node, {})
        if family != "gpu":
            return row
        uuid = row.get("uuid") or f"{node}/{row['gpu']}"
        gpus.setdefault(row["gpu"], Gpu(row["gpu"], uuid, model))
        return {**row, "uuid": uuid}


def _write(book: Logbook, recordings: Iterable[Recording]) -> _Seen:
    """Write every row, and merge what was written."""
    seen = _Seen()
    writers: dict[str, SegmentWriter] = {}
    for family, row, model in _rows(recordings):
        writer = writers.setdefault(row["node"], SegmentWriter(book, row["node"]))
        writer.append(family, seen.row(family, row, model))
        if seen.rows % _FLUSH_ROWS == 0:
            for each in writers.values():
                each.flush()
    for node, writer in writers.items():
        writer.flush()
        merging.merge_node(book, node)
    return seen


def _rows(recordings: Iterable[Recording]) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    for recording in recordings:
        for family, row in recording.rows:
            yield family, row, recording.models.get(row.get("uuid") or "", "")


def _job(book: Logbook, recordings: Sequence[Recording], seen: _Seen, given: Given) -> JobRecord:
    first = recordings[0]
    started = [each.started_ns for each in recordings if each.started_ns is not None]
    start_ns = min(started, default=seen.first_ns)
    end_ns = _ended_ns(recordings, seen)
    allocation = tuple(
        NodeAllocation(node, tuple(_modelled(gpu, given) for _, gpu in sorted(gpus.items())), start_ns, end_ns)
        for node, gpus in sorted(seen.gpus.items())
    )
    return JobRecord(
        job_id=book.path.name,
        cluster=book.path.parent.name,
        user=first.user,
        account=first.account,
        command=first.command,
        name=first.name,
        request=Request(nodes=max(1, len(allocation)), record=True),
        allocation=allocation,
        started_ns=start_ns,
        program_started_ns=start_ns,
        program_ended_ns=end_ns,
        sample_interval_s=max(each.interval_s for each in recordings),
        versions={"piolet": __version__, "imported from": ", ".join(sorted({each.tool for each in recordings}))},
    )


def _modelled(gpu: Gpu, given: Given) -> Gpu:
    return replace(gpu, model=gpu.model or given.gpu_model)


def _ended_ns(recordings: Iterable[Recording], seen: _Seen) -> int | None:
    ended = [each.ended_ns for each in recordings if each.ended_ns is not None]
    return max([*ended, *(() if seen.last_ns is None else (seen.last_ns,))], default=None)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
