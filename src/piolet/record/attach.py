"""`piolet record --attach JOB`: recorders join a job that runs already, in a step of its own on all its nodes.

The program is not touched. What it did before is not known, so job.json says from when on it was recorded.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from piolet import __version__
from piolet.core.errors import ParseError, Refused, ToolError, UsageError
from piolet.core.nouns import Gpu
from piolet.core.run import DEVNULL, Process, SystemRunner, end
from piolet.core.settings import Settings
from piolet.logbook import layout
from piolet.logbook.layout import Logbook
from piolet.logbook.records import JobRecord, NodeAllocation, Request, write_job
from piolet.record import job as job_file
from piolet.record.rates import intervals
from piolet.record.step import recorders_argv
from piolet.record.wakeup import Wakeup
from piolet.tools.slurm import errors, jobs, scontrol, srun
from piolet.tools.slurm.job import Job
from piolet.tools.slurm.states import JobState

_ASK_S = 60.0
_GRACE_S = 30.0
_LONG_S = 3600.0


def attach(name: str, settings: Settings, *, logbook: Path | None = None) -> Logbook:
    """Record the running job `name` until it ends or this process is asked to; return its logbook.

    A logbook that is there already, as of `piolet run` without a recorder, is joined and its job.json left as it is.

    Raises:
        UsageError: the job does not run, or not for this user.
        ToolError: no step could be started on its nodes.
        StorageError: the logbook cannot be made.
    """
    runner = SystemRunner(env={name: None for name in os.environ if name.startswith("SLURM_") and name != "SLURM_CONF"})
    job = jobs.find(runner, name)
    if job.state is not JobState.RUNNING or not job.nodes:
        raise UsageError(f"job {job.shown} is not running: {job.state}", remedy="`squeue --me` lists those that are")
    gpus = _ask(runner, job)
    book, ours = _open(job, gpus, settings, logbook, runner)
    interval_s, rates = settings.record.interval_s, settings.record.rates
    argv = recorders_argv(book.path, job.nodes, gpus_per_node(job), job=job.id, interval_s=interval_s, rates=rates)
    sys.stderr.write(f"piolet: recording to {book.path}; Ctrl-C ends the recording, not the job\n")
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        asked = _follow(runner.start(argv, stdout=DEVNULL, stderr=said, new_session=True))
        ended_ns = time.time_ns()
        if ours:
            job_file.edit(book.job, lambda record: job_file.with_end(record, ended_ns))
        if not asked and jobs.find(runner, name).state is JobState.RUNNING:
            said.seek(0)
            raise ToolError(
                argv, 1, said.read(), remedy="the job goes on, its recorders do not: look at what srun says"
            )
    return book


def gpus_per_node(job: Job) -> int | None:
    """Return how many GPUs the job has on each node; None if it has none, or not the same number everywhere."""
    counts = {len(job.gpu_indexes.get(node, ())) for node in job.nodes}
    return (counts.pop() or None) if len(counts) == 1 else None


def _ask(runner: SystemRunner, job: Job) -> dict[str, tuple[Gpu, ...]]:
    """Ask every node of the job for the GPUs that it has there, which also tells whether a step can run at all."""
    step = srun.Step(
        job=job.id,
        name="record",
        nodes=len(job.nodes),
        ntasks=len(job.nodes),
        ntasks_per_node=1,
        nodelist=job.nodes,
        gpus_per_node=gpus_per_node(job),
        overlap=True,
        chdir="/",
        extra=("--overcommit", "--input=none", "--mpi=none"),
    )
    argv = srun.argv(step, [sys.executable, "-P", "-m", "piolet.record.answer"])
    said = errors.call(runner, argv, timeout=_ASK_S).stdout
    return dict(_parse(line) for line in said.splitlines() if line.strip())


def _parse(line: str) -> tuple[str, tuple[Gpu, ...]]:
    try:
        answer = json.loads(line)
        return answer["node"], tuple(Gpu(**gpu) for gpu in answer["gpus"])
    except (ValueError, KeyError, TypeError) as error:
        raise ParseError("not the answer of a node", source="piolet.record.answer", text=line) from error


def _open(
    job: Job, gpus: dict[str, tuple[Gpu, ...]], settings: Settings, chosen: Path | None, runner: SystemRunner
) -> tuple[Logbook, bool]:
    """Make the logbook, or join the one of the job; also return whether job.json is ours."""
    cluster = settings.cluster or scontrol.config(runner)["ClusterName"]
    directory = (chosen or layout.root(settings) / cluster / str(job.id)).absolute()
    try:
        book = layout.create(directory.parent.parent, directory.parent.name, directory.name)
    except Refused:
        return Logbook(directory), False
    now_ns = time.time_ns()
    write_job(
        book.job,
        JobRecord(
            job_id=str(job.id),
            cluster=cluster,
            user=job.user,
            command=(),
            name=job.name,
            request=Request(nodes=len(job.nodes), record=True),
            allocation=tuple(NodeAllocation(node, gpus.get(node, ()), job.start_ns) for node in job.nodes),
            simulated=("gpu",) if any(gpu.simulated for each in gpus.values() for gpu in each) else (),
            submitted_ns=job.submit_ns,
            started_ns=job.start_ns,
            program_started_ns=now_ns,
            sample_interval_s=settings.record.interval_s,
            intervals_s=intervals(settings.record.rates),
            versions={"piolet": __version__, "python": sys.version.partition(" ")[0]},
        ),
    )
    return book, True


def _follow(step: Process) -> bool:
    """Wait for the step's end, or end it when this process is asked to; return whether it was."""
    wakeup, ended = Wakeup(), os.pidfd_open(step.pid)
    while not wakeup.asked_to_end:
        if wakeup.wait(_LONG_S, [ended]):
            break
    end(step, _GRACE_S, asking=signal.SIGUSR1)  # srun passes it on; SIGTERM would kill the recorders
    os.close(ended)
    return wakeup.asked_to_end
