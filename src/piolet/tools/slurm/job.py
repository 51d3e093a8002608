"""A job as Slurm tells it, the same noun from scontrol, squeue and sacct."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from piolet.core.errors import ParseError
from piolet.core.nodeset import NodeSet
from piolet.tools.slurm.states import JobState


@dataclass(frozen=True, slots=True)
class Job:
    """One job, one task of an array, or one component of a heterogeneous job.

    `id` is the raw number that every task has of its own; `shown` is what users see (``123_4``, ``123+1``).
    Times are UTC nanoseconds, None as long as they are not known; a waiting job's `start_ns` is Slurm's estimate.
    `exit_code` and `signal` are those of the batch script, None where the source does not have them.
    `time_limit_s` is infinity without a limit. `gpu_indexes` maps nodes to the indexes of their allocated GPUs;
    only scontrol knows them, and only while the job runs.
    """

    id: int
    shown: str
    state: JobState
    reason: str = ""
    name: str = ""
    user: str = ""
    partition: str = ""
    nodes: NodeSet = field(default_factory=NodeSet)
    node_count: int | None = None
    batch_host: str = ""
    exit_code: int | None = None
    signal: int | None = None
    submit_ns: int | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    time_limit_s: float | None = None
    tres: Mapping[str, int] = field(default_factory=dict)
    gpu_indexes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    stdout: str = ""
    comment: str = ""


def parse_exit(text: str) -> tuple[int, int]:
    """Return (exit code, signal) of ``7:0``."""
    code, _, signal = text.strip().partition(":")
    if not (code.isdecimal() and signal.isdecimal()):
        raise ParseError("not an exit status of Slurm", source="ExitCode", text=text)
    return int(code), int(signal)


def parse_nodes(text: str) -> NodeSet:
    """Return the nodes of a NodeList field, which may say that there are none."""
    return NodeSet("" if text.strip() in {"(null)", "None assigned", "n/a", "N/A", "None"} else text.strip())
