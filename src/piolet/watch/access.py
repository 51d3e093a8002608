"""Who may see which job, decided in this one place.

A logbook is opened with a Grant, and only `admit` makes grants: whoever forgets to ask has nothing to open.
"""

from __future__ import annotations

import getpass
from dataclasses import dataclass, field
from typing import Final

from piolet.core.errors import UsageError
from piolet.watch.jobs import JobSummary

_MINT: Final = object()


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks. `projects` are the Slurm accounts whose jobs this person may see; an operator sees all."""

    user: str
    projects: frozenset[str] = frozenset()
    operator: bool = False

    def may_see(self, job: JobSummary) -> bool:
        """Return whether the job is this viewer's own or of one of the viewer's projects, or the viewer an operator."""
        own = bool(self.user) and job.user == self.user
        return self.operator or own or (bool(job.account) and job.account in self.projects)


@dataclass(frozen=True, slots=True)
class Grant:
    """The proof that `viewer` may see `job`."""

    viewer: Viewer
    job: JobSummary
    mint: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.mint is not _MINT:
            raise TypeError("only admit() makes grants")


def admit(viewer: Viewer, job: JobSummary | None, wanted: str) -> Grant:
    """Return the grant for a job.

    Raises:
        UsageError: there is none, or the viewer may not see it; both read the same, so nobody learns of others' jobs.
    """
    if job is None or not viewer.may_see(job):
        raise UsageError(f"no job {wanted} that {viewer.user or 'nobody'} may see", remedy="see the list of jobs")
    return Grant(viewer, job, _MINT)


def this_process() -> Viewer:
    """Return the viewer for whom the file system is the judge: whoever runs this process and can read the files."""
    return Viewer(getpass.getuser(), operator=True)
