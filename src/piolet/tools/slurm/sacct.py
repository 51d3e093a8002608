"""sacct: the jobs of the accounting database, for as long as the site keeps them; rows come some seconds late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from piolet.core.nodeset import NodeSet
from piolet.core.run import Runner
from piolet.tools.slurm import errors, rows
from piolet.tools.slurm.job import Job, parse_exit, parse_nodes
from piolet.tools.slurm.states import JobState, parse_job_state
from piolet.tools.slurm.times import parse_duration_s, parse_timestamp_ns
from piolet.tools.slurm.tres import parse_tres

_FIELDS = (
    "JobIDRaw",
    "JobID",
    "State",
    "ExitCode",
    "User",
    "Partition",
    "NNodes",
    "NodeList",
    "Submit",
    "Start",
    "End",
    "Timelimit",
    "AllocTRES",
    "Reason",
    "JobName",
)  # fmt: skip - a row


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a job: `name` is "batch", "extern" or its number; `command` is what Slurm calls it."""

    job: int
    name: str
    state: JobState
    exit_code: int
    signal: int
    nodes: NodeSet = field(default_factory=NodeSet)
    start_ns: int | None = None
    end_ns: int | None = None
    command: str = ""


def argv(ids: Sequence[int | str], *, steps: bool = False) -> list[str]:
    """Return the command that tells about jobs `ids`, and about their steps if asked."""
    jobs_only = [] if steps else ["--allocations"]
    return [
        "sacct",
        "--noheader",
        "--parsable2",
        f"--delimiter={rows.SEPARATOR}",
        *jobs_only,
        f"--jobs={','.join(str(job) for job in ids)}",
        f"--format={','.join(_FIELDS)}",
    ]  # fmt: skip - a command line


def ended_argv(last_s: int, states: Sequence[str]) -> list[str]:
    """Return the command that tells about everybody's jobs that came into one of `states` in the last seconds."""
    return [
        "sacct",
        "--noheader",
        "--allusers",
        "--parsable2",
        f"--delimiter={rows.SEPARATOR}",
        "--allocations",
        f"--starttime=now-{last_s}seconds",
        "--endtime=now",
        f"--state={','.join(states)}",
        f"--format={','.join(_FIELDS)}",
    ]  # fmt: skip - a command line


def account_argv(account: str, since_s: float, until_s: float) -> list[str]:
    """Return the command that tells about everybody's jobs of an account that ran between two times (Unix seconds)."""
    return [
        "sacct",
        "--noheader",
        "--parsable2",
        f"--delimiter={rows.SEPARATOR}",
        "--allocations",
        "--allusers",
        f"--accounts={account}",
        f"--starttime={_local_time(since_s)}",
        f"--endtime={_local_time(until_s)}",
        f"--format={','.join(_FIELDS)}",
    ]  # fmt: skip - a command line


def _local_time(seconds: float) -> str:
    """Return a time as sacct reads it, in the time zone that it shares with this process."""
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%dT%H:%M:%S}"


def parse(text: str) -> list[Job]:
    """Return the jobs of sacct's answer; rows of steps are left out.

    A job that gave nodes back has a row for each size: the last one tells how it is, the first when it began.
    """
    found: dict[int, Job] = {}
    for row in _rows(text):
        if "." not in row[0]:
            job = _job(row)
            before = found.get(job.id)
            resized = before is not None and before.state is JobState.RESIZING
            found[job.id] = replace(job, start_ns=before.start_ns) if before and resized else job
    return list(found.values())


def parse_steps(text: str) -> list[Step]:
    """Return the steps of sacct's answer."""
    return [_step(row) for row in _rows(text) if "." in row[0]]


def jobs(runner: Runner, ids: Sequence[int | str]) -> list[Job]:
    """Tell about jobs `ids`; those that the database does not have are absent."""
    return parse(errors.call(runner, argv(ids)).stdout)


def ended(runner: Runner, last_s: int, states: Sequence[str]) -> list[Job]:
    """Tell about everybody's jobs that ended in one of `states` in the last seconds. Needs operator rights.

    Raises:
        SlurmUnavailable: there is no database, or it does not answer.
    """
    return [job for job in parse(errors.call(runner, ended_argv(last_s, states)).stdout) if job.end_ns]


def of_account(runner: Runner, account: str, since_s: float, until_s: float) -> list[Job]:
    """Tell about everybody's jobs of an account that ran between two times (Unix seconds).

    Raises:
        SlurmUnavailable: the database does not answer.
    """
    return parse(errors.call(runner, account_argv(account, since_s, until_s)).stdout)


def steps(runner: Runner, job: int | str) -> list[Step]:
    """Tell about the steps of a job, finished or not."""
    return parse_steps(errors.call(runner, argv([job], steps=True)).stdout)


def _rows(text: str) -> list[list[str]]:
    return rows.split(text, len(_FIELDS), "sacct", first=r"\d+(\.\w+)?")


def _job(row: Sequence[str]) -> Job:
    raw, shown, state, ended, user, partition, count, nodes, submit, start, end, limit, tres, reason, name = row
    code, signal = parse_exit(ended)
    return Job(
        id=int(raw),
        shown=shown,
        state=parse_job_state(state),
        reason="" if reason == "None" else reason,
        name=name,
        user=user,
        partition=partition,
        nodes=parse_nodes(nodes),
        node_count=rows.number(count, "sacct"),
        exit_code=code,
        signal=signal,
        submit_ns=parse_timestamp_ns(submit),
        start_ns=parse_timestamp_ns(start),
        end_ns=parse_timestamp_ns(end),
        time_limit_s=parse_duration_s(limit),
        tres=parse_tres(tres),
    )


def _step(row: Sequence[str]) -> Step:
    job, _, name = row[0].partition(".")
    code, signal = parse_exit(row[3])
    return Step(
        int(job),
        name,
        parse_job_state(row[2]),
        code,
        signal,
        parse_nodes(row[7]),
        parse_timestamp_ns(row[9]),
        parse_timestamp_ns(row[10]),
        row[-1],
    )
