"""Planning: which nodes to drain and to resume now, under limits, and what is withheld and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from piolet.core.nodeset import NodeSet
from piolet.fleet.ledger import Mode, State, Verb
from piolet.fleet.policy import Limits, Policy
from piolet.fleet.state import Fleet, Node

PREFIX = "piolet: "
"""How the reasons of our own drains begin. A drain without it is somebody else's, and is never touched."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A node as Slurm shows it now. `usable`: jobs may start there."""

    name: str
    partitions: tuple[str, ...] = ()
    usable: bool = True
    drained: bool = False
    reason: str = ""

    @property
    def ours(self) -> bool:
        """Whether this drain is our own."""
        return self.drained and self.reason.startswith(PREFIX)


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do. `id` is the same however often it is planned, so that it is not done twice."""

    id: str
    verb: Verb
    node: str
    reason: str


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
    """Return what to do now that Slurm shows its nodes as `seen`. The oldest wish is granted first."""
    cluster = {one.name: one for one in seen}
    budget = _budget(fleet, cluster, policy, now_ns)
    actions: list[Action] = []
    withheld: list[Withheld] = []
    nodes = sorted(fleet.nodes.values(), key=lambda node: (node.wanted_ns, node.name))
    for node in [one for one in nodes if _wants_out(one)]:
        why = _obstacle(fleet, node, cluster, now_ns) or budget.refusal(node.name)
        if why:
            withheld.append(Withheld(node.name, Verb.DRAIN, why))
        else:
            budget.use(node.name)
            actions.append(_action(Verb.DRAIN, node, PREFIX + node.wanted.rule + ": " + node.wanted.reason))  # type: ignore[union-attr] # wanted
    for node in [one for one in nodes if one.state is State.DRAINED and one.returning]:
        here = cluster.get(node.name)
        if here is None or (here.drained and not here.ours):
            withheld.append(Withheld(node.name, Verb.RESUME, _foreign(here)))
        else:
            actions.append(_action(Verb.RESUME, node, "returned by an operator"))
    return Plan(tuple(actions), tuple(withheld))


def _wants_out(node: Node) -> bool:
    return node.wanted is not None and node.state is not State.DRAINED


def _obstacle(fleet: Fleet, node: Node, cluster: Mapping[str, Seen], now_ns: int) -> str:
    here, wanted = cluster.get(node.name), node.wanted
    if here is None or (here.drained and not here.ours):
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


def _action(verb: Verb, node: Node, reason: str) -> Action:
    return Action(f"{verb.value}-{node.name}-{node.since_seq}", verb, node.name, " ".join(reason.split())[:200])


def _budget(fleet: Fleet, cluster: Mapping[str, Seen], policy: Policy, now_ns: int) -> _Budget:
    since_ns = now_ns - policy.limits.window_h * 3600e9
    partitions: dict[str, set[str]] = {}
    for one in cluster.values():
        for partition in one.partitions:
            partitions.setdefault(partition, set()).add(one.name)
    racks = {f"rack {name}": frozenset(NodeSet(nodes)) for name, nodes in policy.racks.items()}
    ours = {name for name, one in cluster.items() if one.ours}
    members = {name: frozenset(found) for name, found in partitions.items()}
    return _Budget(
        policy.limits,
        cluster,
        set(fleet.out) | ours,
        sum(time_ns >= since_ns for time_ns, _ in fleet.drains),
        {f"partition {name}": found for name, found in members.items()} | racks,
        members,
    )


def overridden(fleet: Fleet, seen: Sequence[Seen]) -> Iterator[tuple[Node, str]]:
    """Yield the nodes that an administrator resumed, or drained as well, while we held them out: theirs wins."""
    for one in seen:
        node = fleet.nodes.get(one.name)
        if node and node.state is State.DRAINED and not one.ours:
            yield node, f"drained by somebody else: {one.reason}" if one.drained else "resumed by somebody else"
