"""sinfo: partitions with their limits, nodes with their states and reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from piolet.core.errors import ParseError
from piolet.core.nodeset import NodeSet
from piolet.core.run import Runner
from piolet.tools.slurm import errors, rows
from piolet.tools.slurm.states import NodeState, parse_node_state
from piolet.tools.slurm.times import parse_duration_s, parse_timestamp_ns
from piolet.tools.slurm.tres import Gres, parse_gres

_MIB = 1 << 20
# P partition ("*" marks the default); a availability; F allocated/idle/other/total nodes; s job size; l time limit;
# N nodes
_PARTITION_FIELDS = ("%P", "%a", "%F", "%s", "%l", "%N")
# N name; R partition; T state; c CPUs; m memory; G GRES; u who and H when set the reason; E reason
_NODE_FIELDS = ("%N", "%R", "%T", "%c", "%m", "%G", "%u", "%H", "%E")


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition: how many nodes it has (`total`) and how many are `idle`; `max_nodes` is infinity without a limit."""

    name: str
    default: bool
    up: bool
    allocated: int
    idle: int
    other: int
    total: int
    max_nodes: float
    time_limit_s: float | None
    nodes: NodeSet


@dataclass(frozen=True, slots=True)
class Node:
    """A node as the controller sees it; `gres` is what it has, `reason` why it is drained or down."""

    name: str
    state: NodeState
    partitions: tuple[str, ...]
    cpus: int
    memory_bytes: int
    gres: tuple[Gres, ...] = ()
    reason: str = ""
    reason_user: str = ""
    reason_ns: int | None = None

    @property
    def gpus(self) -> int:
        """How many GPUs the node has."""
        return sum(gres.count for gres in self.gres if gres.name == "gpu")


def partitions_argv(partition: str = "") -> list[str]:
    """Return the command that lists partitions, hidden ones too."""
    return _argv(_PARTITION_FIELDS, partition)


def nodes_argv(partition: str = "", nodes: NodeSet | None = None) -> list[str]:
    """Return the command that lists nodes, one row for each node and partition."""
    chosen = [f"--nodes={nodes}"] if nodes else []
    return [*_argv(_NODE_FIELDS, partition), "--Node", *chosen]


def parse_partitions(text: str) -> list[Partition]:
    """Return the partitions; groups of nodes that differ in limits or GPUs are rows of one partition."""
    found: dict[str, Partition] = {}
    for row in rows.split(text, len(_PARTITION_FIELDS), "sinfo"):
        partition = _partition(row)
        before = found.get(partition.name)
        found[partition.name] = _together(before, partition) if before else partition
    return list(found.values())


def parse_nodes(text: str) -> list[Node]:
    """Return the nodes, each once, with all its partitions."""
    found: dict[str, Node] = {}
    for row in rows.split(text, len(_NODE_FIELDS), "sinfo"):
        before = found.get(row[0])
        found[row[0]] = _node(row, before.partitions if before else ())
    return list(found.values())


def partitions(runner: Runner, partition: str = "") -> list[Partition]:
    """List the partitions, or the one named; an unknown name lists none."""
    return parse_partitions(errors.call(runner, partitions_argv(partition)).stdout)


def nodes(runner: Runner, partition: str = "", chosen: NodeSet | None = None) -> list[Node]:
    """List the nodes of all partitions or one, or those `chosen`; unknown names are absent."""
    return parse_nodes(errors.call(runner, nodes_argv(partition, chosen)).stdout)


def _argv(fields: Sequence[str], partition: str) -> list[str]:
    chosen = f"--partition={partition}" if partition else "--all"
    return ["sinfo", "--noheader", chosen, f"--format={rows.template(fields)}"]


def _partition(row: Sequence[str]) -> Partition:
    name, available, counts, size, limit, nodes = row
    try:
        allocated, idle, other, total = (int(count) for count in counts.split("/"))
    except ValueError as error:
        raise ParseError("not node counts", source="sinfo", text=counts) from error
    most = size.rpartition("-")[2]
    return Partition(
        name.removesuffix("*"),
        default=name.endswith("*"),
        up=available == "up",
        allocated=allocated,
        idle=idle,
        other=other,
        total=total,
        max_nodes=math.inf if most == "infinite" else rows.number(most, "sinfo"),
        time_limit_s=parse_duration_s(limit),
        nodes=NodeSet(nodes.strip()),
    )


def _together(one: Partition, two: Partition) -> Partition:
    return Partition(
        one.name,
        default=one.default,
        up=one.up,
        allocated=one.allocated + two.allocated,
        idle=one.idle + two.idle,
        other=one.other + two.other,
        total=one.total + two.total,
        max_nodes=max(one.max_nodes, two.max_nodes),
        time_limit_s=one.time_limit_s,
        nodes=one.nodes | two.nodes,
    )


def _node(row: Sequence[str], partitions_before: tuple[str, ...]) -> Node:
    name, partition, state, cpus, memory, gres, user, when, reason = row
    sick = reason != "none"
    return Node(
        name,
        parse_node_state(state),
        (*partitions_before, partition),
        cpus=rows.number(cpus, "sinfo"),
        memory_bytes=rows.number(memory, "sinfo") * _MIB,
        gres=parse_gres(gres),
        reason=reason if sick else "",
        reason_user=user if sick else "",
        reason_ns=parse_timestamp_ns(when) if sick else None,
    )
