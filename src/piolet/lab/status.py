"""What a lab is doing: nodes as Slurm sees them, daemons as the kernel sees them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from piolet.core.errors import PioletError
from piolet.core.run import SystemRunner
from piolet.lab import daemons, processes
from piolet.lab.cluster import Lab
from piolet.lab.files import notices

UNKNOWN = "unknown"
_SINFO_S = 10.0
_NOT_READY = ("down", UNKNOWN, "*")  # a trailing * is a node that does not answer


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A node's state and its reason in Slurm's words; `unknown` if slurmctld does not answer."""

    node: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class LabStatus:
    """The nodes of a lab, the process ids of its daemons (None: not running), and what is switched off."""

    lab: Lab
    nodes: tuple[NodeStatus, ...]
    daemons: Mapping[str, int | None]
    notices: tuple[str, ...]

    @property
    def is_up(self) -> bool:
        """Tell whether every daemon runs and every node answers."""
        return None not in self.daemons.values() and all(is_ready(node.state) for node in self.nodes)


def status(lab: Lab) -> LabStatus:
    """Return the status of `lab`. Its daemons are visible to root only: for others the mapping is empty."""
    running = processes.daemons(lab.directory)
    visible = labels(lab) if os.geteuid() == 0 else ()
    pids = {label: running[label].pid if label in running else None for label in visible}
    return LabStatus(lab, nodes(lab), pids, notices(lab))


def labels(lab: Lab) -> tuple[str, ...]:
    """Return the labels of every daemon that the lab has when it is up."""
    accounting = ("mariadbd", "slurmdbd") if lab.spec.accounting else ()
    return ("munged", *accounting, "slurmctld", *(f"slurmd@{node}" for node in lab.nodes))


def nodes(lab: Lab) -> tuple[NodeStatus, ...]:
    """Ask Slurm for the state of every node."""
    silent = tuple(NodeStatus(node, UNKNOWN, "slurmctld does not answer") for node in lab.nodes)
    if not daemons.answers(lab.gateway, lab.place.slurmctld_port):
        return silent  # sinfo would try for a long time
    runner = SystemRunner(env=lab.environment())
    try:
        answer = runner.run(["sinfo", "--noheader", "--Node", "--format=%N|%T|%E"], timeout=_SINFO_S).stdout
    except PioletError:
        return silent
    return parse_sinfo(answer)


def parse_sinfo(text: str) -> tuple[NodeStatus, ...]:
    """Parse `sinfo --format=%N|%T|%E`: node, state, reason ("none" if there is none)."""
    rows = (line.split("|", 2) for line in text.split("\n") if line.count("|") > 1)
    return tuple(NodeStatus(node, state, "" if reason == "none" else reason) for node, state, reason in rows)


def is_ready(state: str) -> bool:
    """Tell whether a node in `state` has registered and answers; a drained one does."""
    return not any(word in state for word in _NOT_READY)


def ready_nodes(lab: Lab) -> frozenset[str]:
    """Return the nodes that have registered and answer."""
    return frozenset(node.node for node in nodes(lab) if is_ready(node.state))
