"""All logbooks below a root, and what of them one viewer may see."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from piolet.core import config
from piolet.core.errors import UsageError
from piolet.logbook import layout
from piolet.logbook.layout import Logbook
from piolet.watch import access
from piolet.watch.access import Viewer
from piolet.watch.book import Book
from piolet.watch.jobs import JobSummary, summarise

_MOST_CACHED = 20_000
_Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs: `text` is looked for in id, name, user and command; empty fields do not restrict. Times in UTC ns."""

    text: str = ""
    user: str = ""
    account: str = ""
    cluster: str = ""
    state: str = ""
    node: str = ""
    since_ns: int | None = None
    until_ns: int | None = None
    with_findings: bool = False

    def matches(self, job: JobSummary) -> bool:
        """Return whether a job is one of those."""
        words = " ".join((job.job_id, job.name, job.user, *job.command)).casefold()
        exact = (
            (self.user, job.user),
            (self.account, job.account),
            (self.cluster, job.cluster),
            (self.state, job.state),
        )
        return (
            all(wanted in {"", given} for wanted, given in exact)
            and self.text.casefold() in words
            and (not self.node or self.node in job.involved)
            and (not self.with_findings or job.findings > 0)
            and (self.since_ns is None or (job.ended_ns or time.time_ns()) >= self.since_ns)
            and (self.until_ns is None or (job.started_ns or 0) < self.until_ns)
        )


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some of the jobs that match, latest first, and how many match in all."""

    jobs: tuple[JobSummary, ...]
    total: int


class Archive:
    """All logbooks below `root`. It shows none by itself: ask with `seen_by`. Keep one for its cache.

    A list of jobs may be `listed_s` old: looking at thousands of files for each page would be most of a server's time.
    """

    def __init__(self, root: Path, *, listed_s: float = 0.0) -> None:
        self._summaries = _Summaries(root, listed_s)

    def seen_by(self, viewer: Viewer) -> VisibleJobs:
        """Return what `viewer` may see."""
        return VisibleJobs(self._summaries, viewer)


@dataclass(frozen=True, slots=True)
class VisibleJobs:
    """The jobs that `viewer` may see; nothing leads from here to another's."""

    _summaries: _Summaries
    viewer: Viewer

    def find(self, wanted: JobFilter = JobFilter(), *, first: int = 0, most: int = 50) -> JobPage:
        """Return the jobs `first`.. (at most `most`) of those that match, the latest first."""
        seen = (job for job in self._summaries.all() if self.viewer.may_see(job))
        found = sorted((job for job in seen if wanted.matches(job)), key=_latest_first)
        return JobPage(tuple(found[first : first + most]), len(found))

    def noted(self) -> list[JobSummary]:
        """Return the jobs that have notes, the latest first."""
        return sorted(
            (job for job in self._summaries.all() if job.noted and self.viewer.may_see(job)), key=_latest_first
        )

    def open(self, cluster: str, job_id: str) -> Book:
        """Open a job, to be closed by the caller.

        Raises:
            UsageError: no such job, or not this viewer's to see.
        """
        summary = self._summaries.of(cluster, job_id)
        return Book(access.admit(self.viewer, summary, f"{cluster}/{job_id}"))


@dataclass(slots=True)
class _Summaries:
    """The summaries of every logbook below a root, kept as long as its records stay as they were."""

    root: Path
    listed_s: float
    cache: dict[Path, tuple[_Stamp, JobSummary | None]] = field(default_factory=dict)
    listed: tuple[float, tuple[JobSummary, ...]] = (float("-inf"), ())

    def all(self) -> tuple[JobSummary, ...]:
        """Return every job whose records can be read, as they were at most `listed_s` ago."""
        now_s = time.monotonic()
        if now_s - self.listed[0] >= self.listed_s:
            found = (self._read(Logbook(path.parent)) for path in self.root.glob("*/*/job.json"))
            self.listed = (now_s, tuple(summary for summary in found if summary))
        return self.listed[1]

    def of(self, cluster: str, job_id: str) -> JobSummary | None:
        """Return one job, None if there is none or the names are no plain names."""
        plain = all(name and "/" not in name and not name.startswith(".") for name in (cluster, job_id))
        return self._read(Logbook(self.root / cluster / job_id)) if plain else None

    def _read(self, logbook: Logbook) -> JobSummary | None:
        stamp = _stamp(logbook)
        cached = self.cache.get(logbook.path)
        if cached and cached[0] == stamp:
            return cached[1]
        summary = summarise(logbook)
        if len(self.cache) >= _MOST_CACHED:
            self.cache.clear()
        self.cache[logbook.path] = (stamp, summary)
        return summary


def open_logbook(logbook: Logbook) -> Book:
    """Open a logbook that this process's user named by its path: the file system is the judge.

    Raises:
        UsageError: its records cannot be read.
    """
    summary = summarise(logbook)
    if summary is None:
        raise UsageError(
            "the records of this logbook cannot be read", where=str(logbook.path), remedy="look at job.json there"
        )
    return Book(access.admit(access.this_process(), summary, str(logbook.path)))


def find(target: str, root: Path, cluster: str = "") -> Book:
    """Open the job that `target` names, a job id or a directory, for this process's user."""
    return open_logbook(layout.find(target, root, cluster))


def find_configured(target: str) -> Book:
    """Open the job that `target` names below the configured root."""
    settings = config.load().settings
    return find(target, layout.root(settings), settings.cluster)


def _stamp(logbook: Logbook) -> _Stamp:
    """Return what changes when a record of the logbook does."""
    stamp: list[int] = []
    for path in (logbook.job, logbook.outcome, logbook.findings, logbook.notes):
        try:
            found = path.lstat()
        except OSError:
            stamp.append(0)
        else:
            stamp += [found.st_ino, found.st_mtime_ns, found.st_size, found.st_uid]
    return tuple(stamp)


def _latest_first(job: JobSummary) -> tuple[int, str, str]:
    return -(job.started_ns or 0), job.cluster, job.job_id
