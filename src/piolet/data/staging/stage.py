"""Staging on all nodes of a job: who has room, chain or direct reading, and who has it all in the end."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from piolet.core.errors import Refused
from piolet.core.nodeset import NodeSet
from piolet.core.run import SystemRunner
from piolet.data.staging import choosing, session
from piolet.data.staging.choosing import Choice, Measured
from piolet.data.staging.node import Order
from piolet.data.staging.session import Session
from piolet.data.staging.store import SEAL_BYTES
from piolet.data.staging.tree import Tree, scan
from piolet.tools.slurm import scontrol

_BEGIN_S = 60.0
"""Seconds in which a node must begin, measure or give the copy its name."""
_STALL_S = 60.0
"""A node that gets no byte for so long is lost: its disk hangs, or the source does."""
_SILENT_S = 15.0


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be staged where, on which nodes of which job (None: that of this process).

    `seeds` nodes read the source, each at the head of a chain; `direct` says whether to (None: as measured).
    `interface` is the network interface between the nodes; empty for the one by which their names are reached.
    Copies that are not to be kept are deleted when `staged` ends.
    """

    source: Path
    target: Path
    nodes: NodeSet
    job: int | None = None
    seeds: int = 1
    direct: bool | None = None
    interface: str = ""
    keep: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """Which nodes have it, which of them had it before, and why the others do not."""

    size_bytes: int
    there: NodeSet
    reused: NodeSet
    lost: Mapping[str, str]
    choice: Choice
    duration_s: float
    went_around: Mapping[str, Sequence[str]]
    """By node, whom it could not get the rest from, and why, before it got it from another."""

    @property
    def way(self) -> str:
        """How it went from node to node, and why so."""
        passed = "each node read the source" if self.choice.direct else "passed from node to node"
        return f"{passed}: {self.choice.reason}" if self.there != self.reused else self.choice.reason


def stage(
    request: Request, runner: SystemRunner | None = None, report: Callable[[str, float], None] = lambda *_: None
) -> Outcome:
    """Stage on every node; `report` is shown what is done, and the share that the slowest node has; see `staged`."""
    with staged(request, runner, report) as outcome:
        return outcome


@contextmanager
def staged(
    request: Request, runner: SystemRunner | None = None, report: Callable[[str, float], None] = lambda *_: None
) -> Iterator[Outcome]:
    """Stage on every node, and yield how that went.

    A node holds what is not to be kept for as long as the step lives: it is gone after the block, and when Slurm ends
    the job. What a node had before stays.

    Raises:
        UsageError, StorageError: the source is not there, or cannot be listed.
        Refused: a node cannot take it; then nothing is written on any.
        ToolMissing: there is no srun here.
    """
    began_s = time.monotonic()
    runner = runner or SystemRunner()
    source, target = request.source.absolute(), request.target.absolute()
    tree = scan(source)
    secret, toward = secrets.token_bytes(SEAL_BYTES), _toward(request.nodes, runner)
    order = Order(secret, tree, source, target, toward, request.interface, request.keep)
    report("starting", 0.0)
    with session.opened(request.nodes, runner, request.job) as step:
        step.tell(order.to_json())
        had = _ready(step)
        choice = _chosen(step, tree, had, request, report)
        readers = [node for node in step.alive if node not in had]
        seeds = len(readers) if choice.direct else request.seeds
        went_around = _fetched(step, tree.pieces, chains(readers, had, seeds), report)
        step.command("commit")
        there = NodeSet(step.hear("there", stall_s=_BEGIN_S))
        lost, duration_s = dict(step.lost), time.monotonic() - began_s
        yield Outcome(tree.size_bytes, there, NodeSet(had) & there, lost, choice, duration_s, went_around)


def _toward(nodes: NodeSet, runner: SystemRunner) -> dict[str, str]:
    """Return the addresses of the first two nodes as Slurm has them: the way to one of them shows a node its own."""
    first = NodeSet(list(nodes)[:2])
    return {record.name: record.address for record in scontrol.node_records(runner, first)}


def _ready(step: Session) -> list[str]:
    """Tell each node the addresses of all, and return those that have it already; Refused if one cannot take it."""
    refusals: dict[str, str] = {}

    def note(node: str, said: Mapping[str, Any]) -> bool:
        if "refused" in said:
            refusals[node] = str(said["refused"])
        return False

    ready = step.hear("ready", stall_s=_BEGIN_S, got_on=note)
    if refusals:
        node, reason = next(iter(refusals.items()))
        what = f"{reason} (and {len(refusals) - 1} more nodes)" if len(refusals) > 1 else reason
        raise Refused(what, where=node, remedy="choose another place, or ask for nodes with room; nothing was written")
    step.command("peers", peers={node: said["address"] for node, said in ready.items()})
    return [node for node, said in ready.items() if said["there"]]


def _chosen(
    step: Session, tree: Tree, had: Sequence[str], request: Request, report: Callable[[str, float], None]
) -> Choice:
    readers = [node for node in step.alive if node not in had]
    if request.direct is not None:
        return Choice(request.direct, "as asked")
    if not readers:
        return Choice(direct=False, reason="every node has it already" if had else "no node is left")
    if had:
        return Choice(direct=False, reason="a node has it already, and passes it on")
    if choice := choosing.unmeasured(tree.size_bytes, len(readers)):
        return choice
    report("measuring", 0.0)
    return choosing.choose(tree.size_bytes, len(readers), _measured(step, readers))


def _measured(step: Session, readers: Sequence[str]) -> Measured:
    """Measure the links of the chain and one reader, then all readers at once, each another part of the source."""
    slots = len(readers) + 1
    step.command("measure_network", **{"from": dict(zip(readers[1:], readers, strict=False))})
    links = step.hear("network", stall_s=_BEGIN_S)
    step.command("measure_reading", slots={readers[0]: len(readers)}, of=slots)
    alone = step.hear("reading", stall_s=_BEGIN_S).get(readers[0])
    step.command("measure_reading", slots={node: slot for slot, node in enumerate(readers)}, of=slots)
    together = step.hear("reading", stall_s=_BEGIN_S)
    return Measured(
        choosing.slowest([links.get(node) for node in readers[1:]]),
        alone,
        choosing.slowest([together.get(node) for node in readers]),
    )


def chains(readers: Sequence[str], had: Sequence[str], seeds: int) -> list[list[str]]:
    """Return the chains: the readers in `seeds` parts of about one length, behind those that have it already."""
    seeds = max(1, min(seeds, len(readers)))
    bounds = [len(readers) * part // seeds for part in range(seeds + 1)]
    return [[*had, *readers[begin:stop]] for begin, stop in pairwise(bounds)]


def _fetched(
    step: Session, pieces: int, parts: Sequence[Sequence[str]], report: Callable[[str, float], None]
) -> dict[str, Sequence[str]]:
    """Let the nodes fetch it along the chains, and return which of them had to go around others."""
    have = {node: 0 for part in parts for node in part}

    def got_on(node: str, said: Mapping[str, Any]) -> bool:
        before, now = have.get(node, 0), pieces if "whole" in said else int(said.get("at", 0))
        have[node] = max(before, now)
        slowest = min((count for node, count in have.items() if node not in step.lost), default=0)
        report("staging", slowest / max(pieces, 1))
        return now > before

    step.command("fetch", chains=parts)
    whole = step.hear("whole", stall_s=_STALL_S, silent_s=_SILENT_S, got_on=got_on)
    return {node: troubles for node, troubles in whole.items() if troubles}


def unstage(target: Path, nodes: NodeSet, job: int | None = None, runner: SystemRunner | None = None) -> dict[str, str]:
    """Delete on every node what was staged to `target`, and what killed stagings left; return why on some it failed.

    Raises:
        ToolMissing: there is no srun here.
    """
    with session.opened(nodes, runner or SystemRunner(), job) as step:
        step.tell(json.dumps({"unstage": str(target.absolute())}))
        step.hear("unstaged", stall_s=_BEGIN_S)
        return dict(step.lost)
