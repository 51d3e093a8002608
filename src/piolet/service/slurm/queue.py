"""The jobs of services in Slurm's queue, which are known by their names: PROJECT/SERVICE/REPLICA."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from datetime import UTC, datetime

from piolet.core.run import Runner
from piolet.tools.slurm import squeue
from piolet.tools.slurm.job import Job
from piolet.tools.slurm.states import JobState


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that waits: for which replica, why (in Slurm's words), and when Slurm expects it to begin, if it does."""

    job: int
    replica: int
    reason: str
    expected: datetime | None

    def __str__(self) -> str:
        if self.reason == "Dependency":
            return f"job {self.job} follows"
        when = f"{self.expected:%Y-%m-%d %H:%M} UTC" if self.expected else "Slurm does not say when"
        return f"job {self.job} waits: {self.reason or 'no reason yet'}, {when}"


def name(project: str, service: str, replica: int) -> str:
    """Return the name of a replica's jobs."""
    return f"{project}/{service}/{replica}"


def jobs(runner: Runner, project: str, service: str, state: JobState) -> list[Job]:
    """Return this user's jobs of a service in a state."""
    found = squeue.jobs(runner, users=[getpass.getuser()], states=[state.value])
    return [job for job in found if job.name.startswith(f"{project}/{service}/")]


def waiting(runner: Runner, project: str, service: str) -> list[Waiting]:
    """Return the jobs of a service that wait, by replica."""
    found = [_waiting(job) for job in jobs(runner, project, service, JobState.PENDING)]
    return sorted(found, key=lambda each: (each.replica, each.job))


def _waiting(job: Job) -> Waiting:
    expected = datetime.fromtimestamp(job.start_ns / 1e9, UTC) if job.start_ns else None
    return Waiting(job.id, int(job.name.rpartition("/")[2]), job.reason, expected)
