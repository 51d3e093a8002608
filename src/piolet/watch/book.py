"""One open job: its tables, series, events, findings and data quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

from piolet.core.errors import UsageError, storage_errors
from piolet.core.nouns import CheckResult, Interval
from piolet.core.text import did_you_mean
from piolet.logbook import environments, ownership, records
from piolet.logbook.layout import Logbook
from piolet.logbook.reader import Reader, read
from piolet.logbook.schema import FAMILIES
from piolet.watch import quality, series
from piolet.watch.access import Grant
from piolet.watch.quality import DataQuality
from piolet.watch.series import SECOND_NS, Metric, Series, Split
from piolet.watch.tables import Table

CONFIG: Mapping[str, str | int] = {
    "memory_limit": "2GB",
    "threads": 2,
    "temp_directory": "",
    "python_enable_replacements": "false",
}
"""DuckDB's limits for one open job."""

DOCUMENTS = ("report.html", "job.json", "outcome.json", "findings.json", "environment.lock.json")
"""The files of a logbook that people take away as they are."""

MOST_EVENTS = 1000


@lru_cache(maxsize=64)
def _job(path: Path, *_: int) -> records.JobRecord:
    """Read job.json once as long as it stays as it is: of thousands of nodes it takes a fifth of a second."""
    return records.read_job(path)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on a node."""

    time_ns: int
    node: str
    gpu: int | None
    kind: str
    code: str
    severity: str
    message: str


class Book:
    """An open job; close it, or use it in a `with`. Only a Grant opens one, so its viewer may see it."""

    def __init__(self, grant: Grant, config: Mapping[str, Any] = CONFIG) -> None:
        self.grant = grant
        self._config = config
        self._opened: dict[tuple[tuple[str, ...], tuple[str, ...]], Reader] = {}

    @property
    def logbook(self) -> Logbook:
        """Where the job's files are."""
        return self.grant.job.logbook

    @cached_property
    def job(self) -> records.JobRecord:
        """What job.json says."""
        path = self.logbook.job
        with storage_errors(path, "read"):
            found = path.stat()
        return _job(path, found.st_ino, found.st_mtime_ns, found.st_size)

    @property
    def reader(self) -> Reader:
        """The views over the segments, for queries of our own; what users type goes to `piolet.watch.console`.

        They are opened when they are asked for first: most of what a page shows is known without them.
        """
        return self._open()

    def _open(self, families: tuple[str, ...] = tuple(FAMILIES), nodes: tuple[str, ...] = ()) -> Reader:
        """Open the segments of some families and nodes: of a large job all take seconds."""
        key = families, nodes
        if key not in self._opened:
            self._opened[key] = read(
                self.logbook, owner=self.grant.job.owner, config=self._config, families=families, nodes=nodes
            )
        return self._opened[key]

    @property
    def period_s(self) -> float:
        """Seconds between samples."""
        return self.job.sample_interval_s or 1.0

    @property
    def interval(self) -> Interval | None:
        """From the program's start to its end, or to the newest sample while it runs; None if neither is known."""
        begin, end = self.job.program_started_ns, self.job.program_ended_ns
        if begin is None or end is None:
            first, last = self._sampled()
            begin = begin if begin is not None else first
            end = end if end is not None else last and last + round(self.period_s * SECOND_NS)
        return Interval(begin, end) if begin is not None and end is not None and end > begin else None

    def table(self, family: str) -> Table:
        """Return all samples of a family, lazily, with units and coverage."""
        if family not in FAMILIES:
            raise UsageError(f"no family {family}", remedy=did_you_mean(family, FAMILIES))
        return Table(self.reader.database.view(family), FAMILIES[family], self.coverage)

    def metrics(self) -> tuple[Metric, ...]:
        """Return every metric that has a value in this job, those that the program reports last."""
        absent = set(quality.never(self.reader))
        known = [
            Metric(name, column)
            for name in quality.SAMPLED
            for column in FAMILIES[name].numbers
            if not {(name, ""), (name, column)} & absent
        ]
        told = self.reader.database.execute("SELECT DISTINCT name FROM user WHERE value IS NOT NULL ORDER BY 1")
        return (*known, *(Metric("user", name) for (name,) in told.fetchall()))

    def series(
        self,
        metric: Metric,
        *,
        split: Split = Split.JOB,
        nodes: tuple[str, ...] = (),
        interval: Interval | None = None,
        points: int = 400,
    ) -> Series:
        """Return a metric over `interval` (default: all of it) in at most `points` bins that keep every peak.

        `nodes` restricts it to some nodes.

        Raises:
            UsageError: there is no such metric, or nothing was recorded yet.
        """
        span = interval or self.interval
        if span is None:
            raise UsageError("nothing was recorded yet", where=str(self.logbook.path), remedy="wait, or see its events")
        metric.check()
        return series.read_series(
            self._open((metric.family,), nodes),
            metric,
            span,
            split,
            points=points,
            period_s=self.job.period_s(metric.family) or self.period_s,
            expected=self._expected(metric.family, nodes),
        )

    def events(
        self,
        *,
        interval: Interval | None = None,
        kinds: tuple[str, ...] = (),
        node: str = "",
        most: int = MOST_EVENTS,
    ) -> tuple[Event, ...]:
        """Return what happened, on `node` if one is given, in order; of more than `most`, errors and warnings first."""
        opened = self._open(("events",))
        found = opened.database.execute(
            """
            SELECT time_ns, node, gpu, coalesce(kind, ''), coalesce(code, ''), coalesce(severity, ''),
                coalesce(message, '')
            FROM events
            WHERE time_ns >= $start AND time_ns < $end AND (len($kinds) = 0 OR list_contains($kinds, kind))
                AND $node IN ('', node)
            ORDER BY severity = 'error' DESC, severity = 'warning' DESC, time_ns LIMIT $most
            """,
            {
                "start": interval.start_ns if interval else 0,
                "end": interval.end_ns if interval else (1 << 63) - 1,
                "kinds": list(kinds),
                "node": node,
                "most": most,
            },
        ).fetchall()
        return tuple(sorted((Event(*row) for row in found), key=lambda event: event.time_ns))

    def quality(self) -> DataQuality:
        """Return how good the data are; assessed anew at each call, since a job may be running."""
        return quality.assess(self.reader, self.job, self.interval, self.checks())

    def coverage(self, family: str) -> float | None:
        """Return the share of a family's expected samples that is there, None if nobody knows what to expect."""
        return quality.coverage(self.reader, self.job, self.interval, family)

    def findings(self) -> records.Findings | None:
        """Return what diagnosis concluded, None while nobody has asked it."""
        return records.read_findings(self.logbook.findings) if self._own(self.logbook.findings) else None

    def outcome(self) -> records.Outcome | None:
        """Return how the job ended, None while it runs."""
        return records.read_outcome(self.logbook.outcome) if self._own(self.logbook.outcome) else None

    def checks(self) -> tuple[CheckResult, ...]:
        """Return every result of vetting."""
        paths = sorted(self.logbook.vet.glob("*.jsonl"))
        own = ownership.own_files(self.logbook, paths, self.grant.job.owner)
        return records.read_checks(self.logbook.vet) if paths == own else ()

    def verified(self, node: str) -> tuple[environments.Verified, ...]:
        """Return what held in the containers on a node."""
        paths = [path for path in environments.verified_files(self.logbook) if path.stem == node]
        return environments.verified(ownership.own_files(self.logbook, paths, self.grant.job.owner))

    def stacks(self) -> tuple[str, ...]:
        """Return the nodes whose stacks were collected when a hang was suspected."""
        paths = sorted(self.logbook.stacks.glob("*.txt"))
        return tuple(path.stem for path in ownership.own_files(self.logbook, paths, self.grant.job.owner))

    def output(self) -> Path | None:
        """Return the file of the job's output, which `piolet run` keeps beside the logbook; None if there is none."""
        path = self.logbook.path.with_name(f"{self.logbook.path.name}.log")
        beside = Logbook(path.parent)
        return path if ownership.own_files(beside, [path], self.grant.job.owner) else None

    def document(self, name: str) -> Path:
        """Return the path of one of DOCUMENTS.

        Raises:
            UsageError: the logbook has no such file, or it is a link to another's.
        """
        path = self.logbook.path / name
        if name not in DOCUMENTS or not self._own(path):
            raise UsageError(
                f"this logbook has no {name}", where=str(self.logbook.path), remedy=did_you_mean(name, DOCUMENTS)
            )
        return path

    def close(self) -> None:
        """Close the database."""
        for each in self._opened.values():
            each.close()
        self._opened.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _own(self, path: Path) -> bool:
        return bool(ownership.own_files(self.logbook, [path], self.grant.job.owner))

    def _sampled(self) -> tuple[int | None, int | None]:
        each = " UNION ALL ".join(f'FROM "{name}" SELECT time_ns' for name in quality.SAMPLED)
        found: tuple[int | None, int | None] = self.reader.database.execute(
            f"SELECT min(time_ns), max(time_ns) FROM ({each})"  # noqa: S608 - known families
        ).fetchall()[0]
        return found

    def _expected(self, family: str, nodes: tuple[str, ...]) -> int | None:
        """Return how many rows a period should bring, of all nodes or of some."""
        if family == "gpu":
            return sum(not nodes or name in nodes for name, _ in self.job.gpus) or None
        used = (held for held in self.job.allocation if held.used and (not nodes or held.node in nodes))
        return sum(1 for _ in used) or None if family == "host" else None
