"""squeue: the jobs that Slurm holds now, and for a few minutes (MinJobAge) those that ended.

Exit codes are not among its short fields: `jobs.find` has them.
"""

from __future__ import annotations

from collections.abc import Sequence

from piolet.core.run import Runner
from piolet.tools.slurm import errors, rows
from piolet.tools.slurm.job import Job, parse_nodes
from piolet.tools.slurm.states import parse_job_state
from piolet.tools.slurm.times import parse_duration_s, parse_timestamp_ns

# A raw job id; i shown id; T state; u user; P partition; D nodes; N node list; B batch host; V submit, S start and
# e end time; l limit; r reason; j name
_FIELDS = ("%A", "%i", "%T", "%u", "%P", "%D", "%N", "%B", "%V", "%S", "%e", "%l", "%r", "%j")


def argv(
    *, ids: Sequence[int | str] = (), users: Sequence[str] = (), names: Sequence[str] = (), states: Sequence[str] = ()
) -> list[str]:
    """Return the command that lists jobs, one row for each task of an array; without `states` those in any state."""
    filters = (("jobs", [str(job) for job in ids]), ("users", users), ("name", names))
    given = [f"--{option}={','.join(values)}" for option, values in filters if values]
    states = f"--states={','.join(states) or 'all'}"
    return ["squeue", "--noheader", "--all", "--array", states, *given, f"--format={rows.template(_FIELDS)}"]


def parse(text: str) -> list[Job]:
    """Return the jobs of squeue's answer, in its order."""
    return [_job(row) for row in rows.split(text, len(_FIELDS), "squeue", first=r"\d+")]


def jobs(
    runner: Runner,
    *,
    ids: Sequence[int | str] = (),
    users: Sequence[str] = (),
    names: Sequence[str] = (),
    states: Sequence[str] = (),
) -> list[Job]:
    """List jobs. All filters must hold; the values of one are alternatives.

    Raises:
        UnknownJob: a single id was asked for that Slurm does not hold (any more).
    """
    return parse(errors.call(runner, argv(ids=ids, users=users, names=names, states=states)).stdout)


def _job(row: Sequence[str]) -> Job:
    raw, shown, state, user, partition, count, nodes, batch_host, submit, start, end, limit, reason, name = row
    return Job(
        id=int(raw),
        shown=shown,
        state=parse_job_state(state),
        reason="" if reason == "None" else reason,
        name=name,
        user=user,
        partition=partition,
        nodes=parse_nodes(nodes),
        node_count=rows.number(count, "squeue"),
        batch_host="" if batch_host == "n/a" else batch_host,
        submit_ns=parse_timestamp_ns(submit),
        start_ns=parse_timestamp_ns(start),
        end_ns=parse_timestamp_ns(end),
        time_limit_s=parse_duration_s(limit),
    )
