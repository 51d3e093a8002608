"""scontrol: everything about one job or node, the configuration, the controller's health, and changes to jobs.

`show` prints free text between its keys, so a job name written to look like Slurm's own lines can lie about that
job; whoever lists the jobs of others asks squeue.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

from piolet.core.errors import ParseError
from piolet.core.nodeset import NodeSet
from piolet.core.run import Runner
from piolet.tools.slurm import errors
from piolet.tools.slurm.job import Job, parse_exit, parse_nodes
from piolet.tools.slurm.states import NodeState, parse_job_state, parse_node_state
from piolet.tools.slurm.times import parse_duration_s, parse_timestamp_ns
from piolet.tools.slurm.tres import Gres, parse_gres, parse_tres

Pairs = list[tuple[str, str]]

_KEY = re.compile(r"(?:^| )([A-Za-z][\w:/]*)=")
_LINE = re.compile(r"(?m)^(?=(?:   |     )[A-Za-z][\w:/]*=)")  # five blanks: the nodes of a job with -d
_WHOLE_LINE = frozenset(
    {
        "AdminComment",
        "Command",
        "Comment",
        "Extra",
        "OS",
        "Reason",
        "StdErr",
        "StdIn",
        "StdOut",
        "SystemComment",
        "WorkDir",
    }
)  # fmt: skip - a table
_REASON_INDENT = "\n" + " " * 10
_REASON_BY = re.compile(r" \[(?P<user>[^\[\]@]*)@(?P<when>[^\[\]]*)\](?=\n|$)")


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node in full: where it is, what it has, what is allocated of it, and since when it runs."""

    name: str
    state: NodeState
    address: str = ""
    version: str = ""
    boot_ns: int | None = None
    slurmd_start_ns: int | None = None
    gres: tuple[Gres, ...] = ()
    configured: Mapping[str, int] | None = None
    allocated: Mapping[str, int] | None = None
    partitions: tuple[str, ...] = ()
    reason: str = ""
    reason_user: str = ""
    reason_ns: int | None = None
    features: tuple[str, ...] = ()
    """Those that jobs can ask for now."""


@dataclass(frozen=True, slots=True)
class Controller:
    """A slurmctld of the cluster."""

    role: str
    host: str
    up: bool


def job_argv(job: int | str) -> list[str]:
    """Return the command that shows a job with the GPUs it has on each node."""
    return ["scontrol", "--details", "show", "job", str(job)]


def nodes_argv(nodes: NodeSet) -> list[str]:
    """Return the command that shows `nodes`."""
    return ["scontrol", "show", "node", str(nodes)]


def hostnames_argv(hostlist: str) -> list[str]:
    """Return the command that expands a hostlist as Slurm itself understands it."""
    return ["scontrol", "show", "hostnames", hostlist]


def shrink_argv(job: int | str, keep: NodeSet) -> list[str]:
    """Return the command that leaves `job` only the nodes `keep`."""
    return ["scontrol", "update", f"JobId={job}", f"NodeList={keep}"]


def parse_jobs(text: str) -> list[Job]:
    """Return the jobs of `scontrol show job`: one, or the tasks of an array, or the components of a het job."""
    with _complete("scontrol show job", text):
        return [_job(pairs) for pairs in records(text, "JobId")]


def parse_node_records(text: str) -> list[NodeRecord]:
    """Return the nodes of `scontrol show node`."""
    with _complete("scontrol show node", text):
        return [_node(dict(pairs)) for pairs in records(text, "NodeName")]


def parse_config(text: str) -> dict[str, str]:
    """Return the settings of `scontrol show config`."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.strip(): "" if value.strip() == "(null)" else value.strip() for key, value in pairs}


def parse_ping(text: str) -> list[Controller]:
    """Return the controllers of `scontrol ping`."""
    found = re.findall(r"Slurmctld\((\w+)\) at (\S+) is (UP|DOWN)", text)
    if not found:
        raise ParseError("no controller is named", source="scontrol ping", text=text)
    return [Controller(role, host, state == "UP") for role, host, state in found]


def jobs(runner: Runner, job: int | str) -> list[Job]:
    """Show the job, or all tasks of the array, or all components of the het job, that `job` names.

    Raises:
        UnknownJob: the controller has no such job; it forgets them MinJobAge (default 300 s) after their end.
    """
    return parse_jobs(errors.call(runner, job_argv(job)).stdout)


def node_records(runner: Runner, nodes: NodeSet) -> list[NodeRecord]:
    """Show `nodes`; those that do not exist are absent."""
    return parse_node_records(errors.call(runner, nodes_argv(nodes), ok=(0, 1)).stdout)


def config(runner: Runner) -> dict[str, str]:
    """Show the cluster's configuration, such as ``ClusterName`` or ``MinJobAge``."""
    return parse_config(errors.call(runner, ["scontrol", "show", "config"]).stdout)


def ping(runner: Runner) -> list[Controller]:
    """Ask each controller whether it is up; one that is down is an answer, not an error."""
    return parse_ping(errors.call(runner, ["scontrol", "ping"], ok=(0, 1)).stdout)


def hostnames(runner: Runner, hostlist: str) -> list[str]:
    """Expand a hostlist as Slurm itself understands it; NodeSet does the same without asking."""
    return errors.call(runner, hostnames_argv(hostlist)).stdout.split()


def shrink(runner: Runner, job: int | str, keep: NodeSet) -> None:
    """Give back all nodes of a running job but `keep`, which must hold its batch host.

    Without accounting Slurm does this once for a job. The environment of what runs already keeps the old list.
    """
    errors.call(runner, shrink_argv(job, keep))


def drain_argv(nodes: NodeSet, reason: str) -> list[str]:
    """Return the command that keeps new jobs from `nodes`; what runs there goes on."""
    return ["scontrol", "update", f"NodeName={nodes}", "State=DRAIN", f"Reason={reason}"]


def resume_argv(nodes: NodeSet) -> list[str]:
    """Return the command that gives drained `nodes` back to jobs."""
    return ["scontrol", "update", f"NodeName={nodes}", "State=RESUME"]


def drain(runner: Runner, nodes: NodeSet, reason: str) -> None:
    """Keep new jobs from `nodes`. Needs Slurm's operator rights; the reason of an earlier drain is replaced."""
    errors.call(runner, drain_argv(nodes, reason))


def resume(runner: Runner, nodes: NodeSet) -> None:
    """Give drained `nodes` back to jobs. Needs Slurm's operator rights."""
    errors.call(runner, resume_argv(nodes))


def feature_argv(nodes: NodeSet, features: Sequence[str]) -> list[str]:
    """Return the command that gives `nodes` exactly `features`."""
    given = ",".join(features)
    return ["scontrol", "update", f"NodeName={nodes}", f"AvailableFeatures={given}", f"ActiveFeatures={given}"]


def set_features(runner: Runner, nodes: NodeSet, features: Sequence[str]) -> None:
    """Give `nodes` exactly `features`, until slurmctld reads its configuration anew. Needs operator rights."""
    errors.call(runner, feature_argv(nodes, features))


def reserve_argv(name: str, nodes: NodeSet, user: str) -> list[str]:
    """Return the command that keeps `nodes`, until it is deleted, for jobs of `user` in the reservation `name`."""
    return [
        "scontrol",
        "create",
        f"ReservationName={name}",
        f"Nodes={nodes}",
        f"Users={user}",
        "StartTime=now",
        "Duration=UNLIMITED",
        "Flags=MAINT,IGNORE_JOBS",
    ]  # fmt: skip - a command line


def reserve(runner: Runner, name: str, nodes: NodeSet, user: str) -> None:
    """Keep `nodes` for jobs of `user` that ask for the reservation `name`. Needs operator rights."""
    errors.call(runner, reserve_argv(name, nodes, user))


def reserved(runner: Runner, name: str) -> bool:
    """Whether there is a reservation of this name."""
    shown = errors.call(runner, ["scontrol", "show", "reservation", name], ok=(0, 1))
    return f"ReservationName={name} " in shown.stdout


def release(runner: Runner, name: str) -> None:
    """Delete the reservation `name`; jobs that run in it go on. Needs operator rights."""
    errors.call(runner, ["scontrol", "delete", f"ReservationName={name}"])


def unblock_argv(job: int | str) -> list[str]:
    """Return the command that lets `job` begin whatever it waited for."""
    return ["scontrol", "update", f"JobId={job}", "Dependency="]


def exclude_argv(job: int | str, nodes: NodeSet) -> list[str]:
    """Return the command that keeps the pending `job` off `nodes`."""
    return ["scontrol", "update", f"JobId={job}", f"ExcNodeList={nodes}"]


def unblock(runner: Runner, job: int | str) -> None:
    """Let a pending job begin, whatever other jobs it was to wait for."""
    errors.call(runner, unblock_argv(job))


def exclude(runner: Runner, job: int | str, nodes: NodeSet) -> None:
    """Keep a pending job off `nodes`, and off no others."""
    errors.call(runner, exclude_argv(job, nodes))


def records(text: str, first: str) -> list[Pairs]:
    """Split the answer of `scontrol show` into records, each the (key, value) pairs in Slurm's order.

    A record starts with the key `first` at the beginning of a line. A line that starts otherwise than with
    three or five blanks and a key continues the value before it.
    """
    starts = [match.start() for match in re.finditer(rf"(?m)^{first}=", text)]
    return [list(_pairs(text[start:end])) for start, end in pairwise([*starts, len(text)])]


@contextmanager
def _complete(source: str, text: str) -> Iterator[None]:
    """Translate a key that is missing, or a number that is none, into a ParseError."""
    try:
        yield
    except (KeyError, ValueError) as error:
        raise ParseError(f"a record without a readable {error}", source=source, text=text) from error


def _pairs(record: str) -> Iterator[tuple[str, str]]:
    for line in _LINE.split(record):
        yield from _line_pairs(line.rstrip("\n ") if line.startswith(" ") else line.removesuffix("\n"))


def _line_pairs(line: str) -> Iterator[tuple[str, str]]:
    line = line.lstrip(" ")
    keys = list(_KEY.finditer(line))
    for key, after in zip(keys, [*keys[1:], None], strict=True):
        name = key[1]
        if name == "JobName" or (key.start() == 0 and name in _WHOLE_LINE):
            yield name, line[key.end() :]
            return
        yield name, line[key.end() : after.start() if after else None].strip()


def _job(pairs: Pairs) -> Job:
    get = dict(pairs)
    code, signal = parse_exit(get["ExitCode"])
    reason = _plain(get.get("Reason", ""))
    return Job(
        id=int(get["JobId"]),
        shown=_shown(get),
        state=parse_job_state(get["JobState"]),
        reason=reason,
        name=get.get("JobName", ""),
        user=re.sub(r"\(\d+\)$", "", get.get("UserId", "")),
        partition=get.get("Partition", ""),
        nodes=parse_nodes(get.get("NodeList", "")),
        node_count=int(get["NumNodes"].partition("-")[0]) if "NumNodes" in get else None,
        batch_host=get.get("BatchHost", ""),
        exit_code=code,
        signal=signal,
        submit_ns=parse_timestamp_ns(get.get("SubmitTime", "")),
        start_ns=parse_timestamp_ns(get.get("StartTime", "")),
        end_ns=parse_timestamp_ns(get.get("EndTime", "")),
        time_limit_s=parse_duration_s(get.get("TimeLimit", "")),
        tres=parse_tres(get.get("AllocTRES") or get.get("TRES", "")),
        gpu_indexes=_gpu_indexes(pairs),
        stdout=_plain(get.get("StdOut", "")),
        comment=get.get("Comment", ""),
    )


def _shown(get: Mapping[str, str]) -> str:
    if "ArrayTaskId" in get:
        task = get["ArrayTaskId"]
        return f"{get['ArrayJobId']}_{task}" if task.isdigit() else f"{get['ArrayJobId']}_[{task}]"
    if "HetJobOffset" in get:
        return f"{get['HetJobId']}+{get['HetJobOffset']}"
    return get["JobId"]


def _gpu_indexes(pairs: Pairs) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    nodes = NodeSet()
    for key, value in pairs:
        if key == "Nodes":
            nodes = NodeSet(value)
        elif key == "GRES":
            indexes = tuple(index for gres in parse_gres(value) if gres.name == "gpu" for index in gres.indexes)
            found |= dict.fromkeys(nodes, indexes) if indexes else {}
    return found


def _node(get: Mapping[str, str]) -> NodeRecord:
    reason = get.get("Reason", "").replace(_REASON_INDENT, "\n")
    by = _REASON_BY.search(reason)
    return NodeRecord(
        name=get["NodeName"],
        state=parse_node_state(get["State"]),
        address=get.get("NodeAddr", ""),
        version=get.get("Version", ""),
        boot_ns=parse_timestamp_ns(get.get("BootTime", "")),
        slurmd_start_ns=parse_timestamp_ns(get.get("SlurmdStartTime", "")),
        gres=parse_gres(get.get("Gres", "")),
        configured=parse_tres(get.get("CfgTRES", "")),
        allocated=parse_tres(get.get("AllocTRES", "")),
        partitions=tuple(part for part in get.get("Partitions", "").split(",") if part),
        reason=_REASON_BY.sub("", reason, count=1),
        reason_user=by["user"] if by else "",
        reason_ns=parse_timestamp_ns(by["when"]) if by else None,
        features=tuple(part for part in _plain(get.get("ActiveFeatures", "")).split(",") if part),
    )


def _plain(text: str) -> str:
    return "" if text in {"None", "(null)"} else text


def matching(found: Sequence[Job], job: int | str) -> Job | None:
    """Return the one of `found` that `job` names, as a raw number or as users see it."""
    return next((one for one in found if str(job) in {str(one.id), one.shown}), None)
