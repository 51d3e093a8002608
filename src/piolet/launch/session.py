"""One run in progress, and what its logbook says of it so far."""

from __future__ import annotations

import getpass
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from piolet.core.settings import Settings
from piolet.launch import warning
from piolet.launch.machine import Machine
from piolet.launch.request import RunRequest
from piolet.launch.telling import told
from piolet.launch.warning import Warned
from piolet.logbook import provenance, records
from piolet.logbook.layout import Logbook
from piolet.record.rates import intervals


@dataclass(slots=True)
class Session:
    """One run in progress: what it was asked, where it runs, and what its logbook says so far."""

    request: RunRequest
    machine: Machine
    logbook: Logbook
    settings: Settings
    job: records.JobRecord
    warned: Warned | None = None

    def update(self, **changes: object) -> None:
        """Change job.json."""
        self.job = replace(self.job, **changes)  # type: ignore[arg-type] # the names are JobRecord's own
        records.write_job(self.logbook.job, self.job)

    def try_update(self, **changes: object) -> None:
        """Change job.json once the program has run: its end counts, whatever the file system says."""
        with told("job.json"):
            self.update(**changes)


def begin(
    request: RunRequest, machine: Machine, logbook: Logbook, settings: Settings, *, cluster: str, job_id: str
) -> Session:
    """Write the first job.json of a new logbook and return the session."""
    job = records.JobRecord(
        job_id=job_id,
        cluster=cluster,
        user=getpass.getuser(),
        account=os.environ.get("SLURM_JOB_ACCOUNT", ""),
        command=request.command,
        request=request.recorded(),
        name=request.job_name,
        attempt=max(request.attempt, 1),
        previous_job=request.previous_job,
        simulated=machine.simulated(),
        started_ns=time.time_ns(),
        sample_interval_s=settings.record.interval_s if request.record else None,
        intervals_s=intervals(settings.record.rates),
        versions=provenance.versions(Path.cwd()),
    )
    warned = Warned(warning.parse(request.signal)) if request.signal else None
    session = Session(request, machine, logbook, settings, job, warned)
    session.update()
    return session
