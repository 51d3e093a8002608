"""One job, wherever Slurm still knows it: the controller while it is young, the database afterwards."""

from __future__ import annotations

from piolet.core.run import Runner
from piolet.tools.slurm import sacct, scontrol
from piolet.tools.slurm.errors import SlurmUnavailable, UnknownJob
from piolet.tools.slurm.job import Job


def find(runner: Runner, job: int | str) -> Job:
    """Return the job that `job` names: a raw number, an array's task ``123_4`` or a het component ``123+1``.

    Raises:
        UnknownJob: neither the controller nor the database knows it, or there is no database.
        SlurmUnavailable: the controller does not answer.
    """
    try:
        found = scontrol.matching(scontrol.jobs(runner, job), job)
    except UnknownJob as unknown:
        found = _in_database(runner, job, unknown)
    if found is None:
        raise UnknownJob(f"Slurm does not know job {job}", remedy="`squeue --me` and `sacct -X` list your jobs")
    return found


def _in_database(runner: Runner, job: int | str, unknown: UnknownJob) -> Job | None:
    try:
        return scontrol.matching(sacct.jobs(runner, [job]), job)
    except SlurmUnavailable:
        raise unknown from None
