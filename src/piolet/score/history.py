"""The jobs of a project, pooled by GPU-hours: a mean over jobs would let many small ones hide a large one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import ParseError
from piolet.logbook.layout import Logbook
from piolet.logbook.reader import read, rereading
from piolet.logbook.records import JobRecord, read_job
from piolet.score.job import score_job
from piolet.score.model import JobScore

_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Past:
    """One job of the history."""

    job: JobRecord
    score: JobScore

    @property
    def gpu_hours(self) -> float:
        """GPU-hours that the job held."""
        return len(self.score.gpus) * (self.score.wall_s or 0.0) / _HOUR_S


@dataclass(frozen=True, slots=True)
class History:
    """Jobs, oldest first. `unreadable` are directories whose job.json could not be read."""

    jobs: tuple[Past, ...]
    unreadable: tuple[Path, ...]

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all jobs."""
        return sum(past.gpu_hours for past in self.jobs)

    @property
    def scored_gpu_hours(self) -> float:
        """GPU-hours of the jobs that have a score."""
        return sum(past.gpu_hours for past in self.jobs if past.score.score is not None)

    @property
    def score(self) -> float | None:
        """The saturation of all scored jobs, each weighing as many GPU-hours as it held; None without any."""
        weighed = [(past.score.score, past.gpu_hours) for past in self.jobs if past.score.score is not None]
        hours = sum(weight for _, weight in weighed)
        return sum(score * weight for score, weight in weighed) / hours if hours else None

    @property
    def energy_j(self) -> float | None:
        """Joules of the jobs that measured them; None if none did."""
        known = [past.score.energy_j for past in self.jobs if past.score.energy_j is not None]
        return sum(known) if known else None


def history(directories: Sequence[Path], *, name: str = "", user: str = "") -> History:
    """Score every logbook of `directories` whose job has this name and user, where they are given."""
    found: list[Past] = []
    unreadable: list[Path] = []
    for directory in directories:
        try:
            found += _past(Logbook(directory), name, user)
        except ParseError:
            unreadable.append(directory)
    return History(tuple(sorted(found, key=lambda past: past.job.started_ns or 0)), tuple(unreadable))


@rereading
def _past(logbook: Logbook, name: str, user: str) -> list[Past]:
    job = read_job(logbook.job)
    if name not in {"", job.name} or user not in {"", job.user}:
        return []
    with read(logbook) as reader:
        return [Past(job, score_job(reader, job))]
