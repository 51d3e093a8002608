"""The state of the fleet: a fold of its ledger. Folding the same entries always gives the same state."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from piolet.core.nodeset import names
from piolet.core.nouns import Status
from piolet.fleet.evidence import REVALIDATION, Evidence, Kind
from piolet.fleet.ledger import OUT, Breaker, Entry, Firing, Instruction, Order, Phase, State, Step, Transition, Verb

KEPT_PER_NODE = 256
"""Observations against a node that decisions look back on; the ledger keeps all."""

_KEPT_PER_GROUP = 4096
_KEPT_JOBS = 20_000
_KEPT_ENDS = 50_000


@dataclass(slots=True)
class Node:
    """A node: where it stands, since when and why, the evidence against it, and what is asked for it.

    `since` is the beginning of the hash of the entry that put it there, which no other ledger has.
    `wanted` is the firing that asks to drain it, with `wanted_ns`; `clean` holds the jobs that ended well since its
    probation began. Evidence from before `forgiven_ns`, when it last came back, no longer counts.
    While it is out, `tried` counts the rungs of healing, `vet_job` is the job that vets it and `vetted` what that said;
    `drained_ns` is when it was drained, each time. `returning`, `vetting` and `ticket` are what was ordered or opened.
    `marked`: it has the feature of nodes on probation in Slurm.
    """

    name: str
    state: State = State.IN
    since_ns: int = 0
    since: str = ""
    reason: str = ""
    evidence: deque[Evidence] = field(default_factory=lambda: deque(maxlen=KEPT_PER_NODE))
    fired: dict[tuple[str, str], int] = field(default_factory=dict)
    signals: dict[str, int] = field(default_factory=dict)
    wanted: Firing | None = None
    wanted_ns: int = 0
    approved: bool = False
    held_until_ns: int = 0
    held_why: str = ""
    returning: bool = False
    vetting: bool = False
    forgiven_ns: int = 0
    clean: set[str] = field(default_factory=set)
    tried: int = 0
    vet_job: str = ""
    vetted: Status | None = None
    ticket: bool = False
    marked: bool = False
    drained_ns: list[int] = field(default_factory=list)
    history: list[Entry] = field(default_factory=list)

    def cycles(self, since_ns: int) -> int:
        """How often it was drained since `since_ns`."""
        return sum(time_ns >= since_ns for time_ns in self.drained_ns)


@dataclass(slots=True)
class Gpu:
    """A GPU by its UUID: its serial, the node that it was last seen in, and each move (time_ns, node).

    `evidence` is what speaks against it, wherever it was; from before `forgiven_ns`, when its node last came back, it
    no longer counts.
    """

    uuid: str
    serial: str = ""
    node: str = ""
    moves: list[tuple[int, str]] = field(default_factory=list)
    evidence: deque[Evidence] = field(default_factory=lambda: deque(maxlen=KEPT_PER_NODE))
    forgiven_ns: int = 0


@dataclass(slots=True)
class Fleet:
    """Everything that follows from the ledger so far."""

    last: Entry | None = None
    nodes: dict[str, Node] = field(default_factory=dict)
    gpus: dict[str, Gpu] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    ends: deque[Evidence] = field(default_factory=lambda: deque(maxlen=_KEPT_ENDS))
    groups: dict[str, deque[tuple[int, str]]] = field(default_factory=dict)
    spread: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    breakers: dict[str, Breaker] = field(default_factory=dict)
    closed_ns: dict[str, int] = field(default_factory=dict)
    open_steps: dict[str, Step] = field(default_factory=dict)
    probation: set[str] = field(default_factory=set)
    drains: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=_KEPT_PER_GROUP))

    @property
    def time_ns(self) -> int:
        """When the last entry was written."""
        return self.last.time_ns if self.last else 0

    def node(self, name: str) -> Node:
        """Return the node of this name; one that nothing is known of is in."""
        return self.nodes.setdefault(name, Node(name))

    @property
    def observed(self) -> list[Evidence]:
        """The ends of jobs and what speaks against nodes, as far as it is kept: what blame is made from."""
        return [*self.ends, *(one for node in self.nodes.values() for one in node.evidence)]

    @property
    def out(self) -> frozenset[str]:
        """The nodes that the fleet holds out of service, or is about to."""
        draining = {step.node for step in self.open_steps.values() if step.verb is Verb.DRAIN}
        return frozenset(draining | {node.name for node in self.nodes.values() if node.state in OUT})

    @property
    def vet_jobs(self) -> dict[str, str]:
        """The jobs that vet nodes now, each with its node."""
        vetted = (node for node in self.nodes.values() if node.state is State.REVALIDATE and node.vetted is None)
        return {node.vet_job: node.name for node in vetted}


def fold(fleet: Fleet, entries: Iterable[Entry]) -> Fleet:
    """Take `entries` into `fleet`, and return it."""
    for entry in entries:
        _take(fleet, entry)
        fleet.last = entry
    return fleet


def _take(fleet: Fleet, entry: Entry) -> None:
    content = entry.content
    match content:
        case Evidence():
            _evidence(fleet, content)
        case Firing():
            _firing(fleet.node(content.node), content, entry)
        case Transition():
            _transition(fleet, fleet.node(content.node), content, entry)
        case Step():
            _step(fleet, content, entry)
        case Instruction():
            _instruction(fleet, content, entry)
        case Breaker():
            fleet.breakers[content.group] = content


def _evidence(fleet: Fleet, seen: Evidence) -> None:
    fleet.known.add(seen.id)
    if seen.gpu:
        _gpu(fleet, seen)
    if seen.kind is Kind.JOB:
        _job(fleet, seen)
    if seen.code == REVALIDATION and seen.node in fleet.nodes:
        _vetted(fleet.nodes[seen.node], seen)
    if seen.node and seen.failed:
        fleet.node(seen.node).evidence.append(seen)
        fleet.groups.setdefault(seen.group, deque(maxlen=_KEPT_PER_GROUP)).append((seen.time_ns, seen.node))
        if seen.job:
            _spread(fleet, seen)


def _spread(fleet: Fleet, seen: Evidence) -> None:
    fleet.spread.setdefault((seen.job, seen.group), set()).add(seen.node)
    while len(fleet.spread) > _KEPT_JOBS:
        fleet.spread.pop(next(iter(fleet.spread)))


def _gpu(fleet: Fleet, seen: Evidence) -> None:
    gpu = fleet.gpus.setdefault(seen.gpu, Gpu(seen.gpu))
    gpu.serial = seen.serial or gpu.serial
    if seen.node != gpu.node:
        gpu.node = seen.node
        gpu.moves.append((seen.time_ns, seen.node))
    if seen.failed:
        gpu.evidence.append(seen)


def _job(fleet: Fleet, seen: Evidence) -> None:
    fleet.ends.append(seen)
    if seen.failed or not seen.source.trusted or not fleet.probation:
        return
    for name in fleet.probation & names(seen.nodes):
        if seen.time_ns >= fleet.nodes[name].since_ns:
            fleet.nodes[name].clean.add(seen.job or seen.id)


def _vetted(node: Node, seen: Evidence) -> None:
    if node.state is State.REVALIDATE and seen.job == node.vet_job and seen.source.trusted:
        node.vetted = seen.status


def _firing(node: Node, firing: Firing, entry: Entry) -> None:
    node.history.append(entry)
    node.fired[firing.rule, firing.gpu] = entry.time_ns
    if firing.mode.value != "shadow":
        node.signals[firing.rule] = entry.time_ns
        if firing.to is State.DRAINED:
            node.wanted, node.wanted_ns, node.approved = firing, entry.time_ns, False


def _transition(fleet: Fleet, node: Node, moved: Transition, entry: Entry) -> None:
    node.history.append(entry)
    if moved.after is State.DRAINED and node.state not in OUT:
        node.drained_ns.append(entry.time_ns)
        node.tried, node.vetted = 0, None
    node.tried += moved.after in {State.RESET, State.REBOOT}
    node.state, node.since_ns, node.since, node.reason = moved.after, entry.time_ns, entry.hash[:8], moved.reason
    (fleet.probation.add if moved.after is State.PROBATION else fleet.probation.discard)(node.name)
    node.vetting = node.ticket = False
    if moved.after is not State.SUSPECT and moved.after not in OUT:
        node.wanted, node.approved = None, False
    if moved.after is State.REVALIDATE:
        node.vetted = None
    if moved.after in {State.IN, State.PROBATION}:
        node.returning = False
        node.clean.clear()
        node.signals.clear()
        node.forgiven_ns = entry.time_ns
        for uuid in {one.gpu for one in node.evidence if one.gpu}:
            if fleet.gpus[uuid].node == node.name:
                fleet.gpus[uuid].forgiven_ns = entry.time_ns


def _step(fleet: Fleet, step: Step, entry: Entry) -> None:
    node = fleet.node(step.node)
    node.history.append(entry)
    if step.phase is Phase.BEGUN:
        fleet.open_steps[step.action] = step
        return
    fleet.open_steps.pop(step.action, None)
    if step.phase is Phase.DROPPED:
        node.wanted, node.returning, node.vetting = None, False, False
    elif step.verb is Verb.DRAIN and node.state not in OUT:
        fleet.drains.append((entry.time_ns, step.node))
    elif step.verb is Verb.VET:
        node.vet_job = step.job
    elif step.verb is Verb.TICKET:
        node.ticket = True
    elif step.verb in {Verb.MARK, Verb.UNMARK}:
        node.marked = step.verb is Verb.MARK


def _instruction(fleet: Fleet, said: Instruction, entry: Entry) -> None:
    if said.order is Order.CLOSE_BREAKER:
        fleet.breakers.pop(said.target, None)
        fleet.closed_ns[said.target] = entry.time_ns
        return
    node = fleet.node(said.target)
    node.history.append(entry)
    match said.order:
        case Order.APPROVE:
            node.approved = True
        case Order.HOLD:
            node.held_until_ns, node.held_why = said.until_ns or 0, said.reason
        case Order.RELEASE:
            node.held_until_ns = 0
        case Order.RETURN:
            node.returning = True
        case Order.VET:
            node.vetting = True
