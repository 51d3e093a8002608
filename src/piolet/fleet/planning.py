"""Planning: what to do with nodes now - drain, heal, vet, resume -, under limits, and what is withheld. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from piolet.core.nodeset import NodeSet
from piolet.core.nouns import Severity, Status
from piolet.fleet import deciding
from piolet.fleet.ledger import DRAINED, OUT, Firing, Mode, State, Verb
from piolet.fleet.policy import Limits, Policy
from piolet.fleet.state import Fleet, Node

PREFIX = "piolet: "
"""How the reasons of our own drains begin. A drain without it is somebody else's, and is never touched."""

_GRACE_MIN = 60
"""How long a job that vets may wait to start, beyond its own time limit."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A node as Slurm shows it now.

    `usable`: jobs may start there; `busy`: jobs are there; `answers`: its slurmd does. `reason` was set at `reason_ns`.
    """

    name: str
    partitions: tuple[str, ...] = ()
    usable: bool = True
    drained: bool = False
    reason: str = ""
    busy: bool = False
    answers: bool = True
    gpus: int = 0
    reason_ns: int | None = None

    @property
    def ours(self) -> bool:
        """Whether this drain is our own."""
        return self.drained and self.reason.startswith(PREFIX)

    @property
    def foreign(self) -> bool:
        """Whether somebody else has drained it."""
        return self.drained and not self.ours


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do. `id` is the same however often it is planned, so that it is not done twice.

    `gpu` is what a reset is about, and `protocol` what vetting runs.
    """

    id: str
    verb: Verb
    node: str
    reason: str
    gpu: str = ""
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class Withheld:
    """What would be done, and what keeps it from being done."""

    node: str
    verb: Verb
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and what is withheld."""

    actions: tuple[Action, ...] = ()
    withheld: tuple[Withheld, ...] = ()


@dataclass(slots=True)
class _Budget:
    """What the limits still allow; each grant uses it up."""

    limits: Limits
    cluster: Mapping[str, Seen]
    out: set[str]
    recent: int
    groups: dict[str, frozenset[str]] = field(default_factory=dict)
    partitions: dict[str, frozenset[str]] = field(default_factory=dict)

    def refusal(self, node: str) -> str:
        """Return the limit that draining `node` would exceed, or nothing."""
        limits, size = self.limits, len(self.cluster)
        most = min(limits.out_nodes, int(limits.out_fraction * size))
        if len(self.out) >= most:
            return f"{len(self.out)} nodes are out already; at most {most} of {size} may be"
        if self.recent >= limits.window_nodes:
            return f"{self.recent} nodes were drained within {limits.window_h:g} h, which is the most"
        for name, members in self.groups.items():
            allowed = int(limits.group_fraction * len(members))
            if node in members and len(self.out & members) >= allowed:
                return f"{len(self.out & members)} nodes of {name} are out already; at most {allowed} may be"
        for name, members in self.partitions.items():
            left = sum(self.cluster[one].usable for one in members - self.out - {node})
            if node in members and left < limits.partition_keep:
                return f"partition {name} would keep {left} usable nodes"
        return ""

    def use(self, node: str) -> None:
        """Count `node` as drained."""
        self.out.add(node)
        self.recent += 1


def plan(fleet: Fleet, seen: Iterable[Seen], policy: Policy, now_ns: int) -> Plan:
    """Return what to do now, with nodes as `seen` in Slurm. The gravest and oldest wishes are granted first."""
    cluster = {one.name: one for one in seen}
    found = [*_drains(fleet, cluster, policy, now_ns)]
    for node in sorted(fleet.nodes.values(), key=lambda one: one.name):
        here = cluster.get(node.name)
        if node.state in OUT:
            found += _way_back(node, here, policy, now_ns)
        if here and policy.course.feature:
            found += _marking(node, here)
    return Plan(
        tuple(one for one in found if isinstance(one, Action)), tuple(one for one in found if isinstance(one, Withheld))
    )


def _drains(fleet: Fleet, cluster: Mapping[str, Seen], policy: Policy, now_ns: int) -> Iterator[Action | Withheld]:
    budget = _budget(fleet, cluster, policy, now_ns)
    for node, wanted in sorted(_wishes(fleet), key=_urgency):
        why = _obstacle(fleet, node, cluster, now_ns) or budget.refusal(node.name)
        if why:
            yield Withheld(node.name, Verb.DRAIN, why)
        else:
            budget.use(node.name)
            yield _action(Verb.DRAIN, node, f"{wanted.rule}: {wanted.reason}")


def _wishes(fleet: Fleet) -> Iterator[tuple[Node, Firing]]:
    for node in fleet.nodes.values():
        if node.wanted and node.state not in OUT:
            yield node, node.wanted


def _urgency(wish: tuple[Node, Firing]) -> tuple[int, int, str]:
    node, wanted = wish
    return -list(Severity).index(wanted.severity), node.wanted_ns, node.name


def _way_back(node: Node, here: Seen | None, policy: Policy, now_ns: int) -> Iterator[Action | Withheld]:
    """Yield the next step of a node that is out: heal it, vet it, take it back, or tell who replaces it."""
    step = next_step(node, policy, now_ns)
    if step is None:
        return
    verb, reason = step
    why_not = _why_not(verb, node, here)
    if why_not:
        yield Withheld(node.name, verb, why_not)
    else:
        yield _action(verb, node, reason, policy)


def next_step(node: Node, policy: Policy, now_ns: int) -> tuple[Verb, str] | None:
    """Return what a node that is out needs next, and why; None if it waits for an operator or for the job that vets."""
    rungs = deciding.rungs(node, policy)
    step: tuple[Verb, str] | None = None
    if node.returning:
        step = Verb.RESUME, "returned by an operator"
    elif node.state is State.REVALIDATE:
        step = _judged(node, policy, now_ns)
    elif node.vetting:
        step = Verb.VET, "an operator asks for it"
    elif node.state in {State.RESET, State.REBOOT}:
        step = Verb.VET, f"after its {node.state.value}"
    elif node.state is State.DRAINED and node.vetted is not Status.UNKNOWN and node.tried < len(rungs):
        step = Verb(rungs[node.tried]), f"step {node.tried + 1} of healing"
    elif node.state is State.RMA and policy.healing.ticket and not node.ticket:
        step = Verb.TICKET, node.reason
    return step


def _judged(node: Node, policy: Policy, now_ns: int) -> tuple[Verb, str] | None:
    late = now_ns - node.since_ns > (policy.healing.vet_min + _GRACE_MIN) * 60e9
    match node.vetted:
        case Status.PASS:
            return Verb.RESUME, f"job {node.vet_job} found nothing"
        case Status.FAIL:
            return Verb.DRAIN, f"job {node.vet_job} found it bad"
        case Status.UNKNOWN:
            return Verb.DRAIN, f"job {node.vet_job} could not tell"
    return (Verb.DRAIN, f"job {node.vet_job} has said nothing") if late else None


def _why_not(verb: Verb, node: Node, here: Seen | None) -> str:
    if verb is Verb.TICKET:
        return ""
    if here is None or here.foreign:
        return _foreign(here)
    if here.busy and (verb is not Verb.RESUME or node.state is State.REVALIDATE):
        return f"jobs are still running on {node.name}"
    if verb is Verb.VET and not here.answers:
        return f"{node.name} does not answer Slurm"
    return ""


def _marking(node: Node, here: Seen) -> Iterator[Action]:
    wanted = node.state is State.PROBATION
    if node.marked != wanted and not here.foreign:
        yield _action(Verb.MARK if wanted else Verb.UNMARK, node, f"it is {node.state.value}")


def _obstacle(fleet: Fleet, node: Node, cluster: Mapping[str, Seen], now_ns: int) -> str:
    here, wanted = cluster.get(node.name), node.wanted
    if here is None or here.foreign:
        return _foreign(here)
    if node.held_until_ns > now_ns:
        return f"held by an operator: {node.held_why}"
    if wanted and wanted.group in fleet.breakers:
        return f"the breaker of {wanted.group} is open: {fleet.breakers[wanted.group].reason}"
    if wanted and wanted.mode is Mode.ADVISE and not node.approved:
        return f"waits for `piolet fleet approve {node.name}`"
    return ""


def _foreign(here: Seen | None) -> str:
    return "Slurm does not know this node" if here is None else f"drained by somebody else: {here.reason}"


def _action(verb: Verb, node: Node, reason: str, policy: Policy | None = None) -> Action:
    gpu = node.wanted.gpu if node.wanted else ""
    protocol = _protocol(node, policy.healing.protocol) if policy and verb is Verb.VET else ""
    said = " ".join((PREFIX + reason if verb is Verb.DRAIN else reason).split())[:200]
    return Action(f"{verb.value}-{node.name}-{node.since}", verb, node.name, said, gpu, protocol)


def _protocol(node: Node, usual: str) -> str:
    """Return the protocol that found the node bad, since that is what it must pass."""
    return next((one.tier for one in reversed(node.evidence) if one.tier), usual)


def _budget(fleet: Fleet, cluster: Mapping[str, Seen], policy: Policy, now_ns: int) -> _Budget:
    since_ns = now_ns - policy.limits.window_h * 3600e9
    partitions: dict[str, set[str]] = {}
    for one in cluster.values():
        for partition in one.partitions:
            partitions.setdefault(partition, set()).add(one.name)
    places = {f"rack {name}": nodes for name, nodes in policy.racks.items()}
    places |= {f"switch {name}": nodes for name, nodes in policy.switches.items()}
    ours = {name for name, one in cluster.items() if one.ours}
    members = {name: frozenset(found) for name, found in partitions.items()}
    return _Budget(
        policy.limits,
        cluster,
        set(fleet.out) | ours,
        sum(time_ns >= since_ns for time_ns, _ in fleet.drains),
        {f"partition {name}": found for name, found in members.items()}
        | {name: frozenset(NodeSet(nodes)) for name, nodes in places.items()},
        members,
    )


def overridden(fleet: Fleet, seen: Sequence[Seen]) -> Iterator[tuple[Node, str]]:
    """Yield the nodes that an administrator resumed, or drained as well, while we held them out: theirs wins."""
    for one in seen:
        node = fleet.nodes.get(one.name)
        theirs = f"drained by somebody else: {one.reason}" if one.drained else "resumed by somebody else"
        held = node is not None and node.state in DRAINED and one.answers  # one that boots may show anything
        if node and ((one.foreign and node.state in OUT) or (held and not one.ours)):
            yield node, theirs
