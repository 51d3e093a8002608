"""Other jobs, for the judgement of one: earlier runs of the same program, and what ran at the same time.

They are those that whoever asks may see, so that no finding tells of a job that its reader must not know of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from piolet.core.nouns import Interval
from piolet.watch.archive import JobFilter, VisibleJobs
from piolet.watch.jobs import JobSummary

MOST_RUNS = 5
MOST_BESIDE = 50
_MOST_LISTED = 10_000


@dataclass(frozen=True, slots=True)
class Past:
    """The jobs beside and before `about`."""

    jobs: VisibleJobs
    about: JobSummary

    def runs(self) -> tuple[JobSummary, ...]:
        """Return the latest runs before this one of the same program: same user, name and number of GPUs, completed."""
        about = self.about
        same = JobFilter(user=about.user, cluster=about.cluster, state="COMPLETED", until_ns=about.started_ns)
        found = (
            job
            for job in self.jobs.find(same, most=_MOST_LISTED).jobs
            if (job.name, job.gpus, job.recorded) == (about.name, about.gpus, True)
        )
        return tuple(job for job, _ in zip(found, range(MOST_RUNS), strict=False))

    def beside(self, interval: Interval) -> Iterator[JobSummary]:
        """Yield other recorded jobs of the cluster that ran in an interval, the latest first."""
        then = JobFilter(cluster=self.about.cluster, since_ns=interval.start_ns, until_ns=interval.end_ns)
        for job in self.jobs.find(then, most=MOST_BESIDE).jobs:
            if job.job_id != self.about.job_id and job.recorded:
                yield job
