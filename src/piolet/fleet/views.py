"""What people read of a fleet: rows and words, made from its state alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from piolet.fleet import deciding, planning
from piolet.fleet.evidence import Evidence
from piolet.fleet.ledger import OUT, Breaker, Entry, Firing, Instruction, Mode, State, Step, Transition, Verb
from piolet.fleet.policy import Policy
from piolet.fleet.state import Fleet, Node

_ORDER = (
    State.RMA,
    State.DRAINED,
    State.RESET,
    State.REBOOT,
    State.REVALIDATE,
    State.SUSPECT,
    State.PROBATION,
    State.OBSERVED,
    State.IN,
)
NOTABLE = _ORDER[:-1]
"""The states of nodes that are not simply in."""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node in a list: the failures that still count against it, and what it waits for."""

    node: str
    state: State
    since_ns: int
    reason: str
    signals: int
    failures: int
    waits: str


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a node's history."""

    seq: int
    time_ns: int
    what: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a node stands where it does: on what evidence (time_ns, words), and what comes next."""

    node: str
    state: State
    since_ns: int
    reason: str
    evidence: tuple[tuple[int, str], ...]
    history: tuple[Event, ...]
    next: str


@dataclass(frozen=True, slots=True)
class RuleRow:
    """How often a rule fired, on how many nodes, and how many of these were drained."""

    rule: str
    firings: int
    nodes: int
    drained: int


def nodes(fleet: Fleet, policy: Policy, states: Sequence[State] = NOTABLE) -> list[NodeRow]:
    """Return the nodes in `states` that something is known of, those out of service first."""
    listed = [node for node in fleet.nodes.values() if node.state in states]
    listed.sort(key=lambda node: (_ORDER.index(node.state), node.name))
    return [_row(node, node.since_ns, node.reason, _next(fleet, node, policy)) for node in listed]


def breakers(fleet: Fleet) -> list[Breaker]:
    """Return the breakers that are open."""
    return [fleet.breakers[group] for group in sorted(fleet.breakers)]


def approvals(fleet: Fleet) -> list[NodeRow]:
    """Return the nodes whose drain waits for an operator's approval."""
    return [
        _row(node, node.wanted_ns, node.wanted.reason, "approval")
        for node in fleet.nodes.values()
        if node.wanted and node.wanted.mode is Mode.ADVISE and not node.approved and node.state not in OUT
    ]


def rules(fleet: Fleet) -> list[RuleRow]:
    """Return what each rule has done, the busiest first."""
    fired: dict[str, list[str]] = {}
    for node in fleet.nodes.values():
        for entry in node.history:
            if isinstance(entry.content, Firing):
                fired.setdefault(entry.content.rule, []).append(node.name)
    drained = {name for _, name in fleet.drains}
    rows = [RuleRow(rule, len(names), len(set(names)), len(set(names) & drained)) for rule, names in fired.items()]
    return sorted(rows, key=lambda row: (-row.firings, row.rule))


def explain(fleet: Fleet, name: str, policy: Policy) -> Explanation:
    """Return why node `name` stands where it does; one that nothing is known of is in."""
    node = fleet.nodes.get(name) or Node(name)
    counted = _counted(node)
    return Explanation(
        name,
        node.state,
        node.since_ns,
        node.reason or "nothing speaks against it",
        tuple((one.time_ns, f"{one.group} {one.gpu} job {one.job or '-'}: {one.message}") for one in counted[-20:]),
        tuple(events(node)),
        _next(fleet, node, policy),
    )


def events(node: Node) -> Iterator[Event]:
    """Yield the history of a node, in words."""
    for entry in node.history:
        yield Event(entry.seq, entry.time_ns, words(entry))


def words(entry: Entry) -> str:
    """Return an entry in plain words."""
    match entry.content:
        case Firing() as fired:
            return f"rule {fired.rule} ({fired.mode.value}) asks for {fired.to.value}: {fired.reason}"
        case Transition() as moved:
            return f"{moved.node}: {moved.before.value} -> {moved.after.value}: {moved.reason}"
        case Step() as step:
            return f"{step.verb.value} of {step.node} {step.phase.value}: {step.reason}"
        case Instruction() as said:
            return f"{said.user} ordered {said.order.value} of {said.target}: {said.reason}"
        case Breaker() as opened:
            return f"breaker of {opened.group} opened: {opened.reason}"
        case seen:
            where = " ".join(filter(None, (seen.node or seen.nodes, seen.gpu, seen.job and f"in job {seen.job}")))
            message = f": {seen.message}" if seen.message else ""
            return f"{seen.source.value} saw {seen.group} {seen.status.value} on {where}{message}"


def _row(node: Node, since_ns: int, reason: str, waits: str) -> NodeRow:
    return NodeRow(node.name, node.state, since_ns, reason, len(node.signals), len(_counted(node)), waits)


def _counted(node: Node) -> list[Evidence]:
    return [one for one in node.evidence if one.time_ns >= node.forgiven_ns]


def _next(fleet: Fleet, node: Node, policy: Policy) -> str:
    if node.state is State.SUSPECT and node.wanted:
        return _next_of_wish(fleet, node, node.wanted, policy)
    if node.state in OUT:
        return _next_of_out(node, policy)
    course = policy.course
    quiet = f"is in after {deciding.quiet_days(node, policy):g} quiet days"
    return {
        State.IN: "",
        State.OBSERVED: quiet,
        State.SUSPECT: quiet,
        State.PROBATION: f"is in after {course.clean_jobs} clean jobs; {len(node.clean)} so far",
    }[node.state]


def _next_of_out(node: Node, policy: Policy) -> str:
    planned = planning.next_step(node, policy, node.since_ns)
    if planned:
        verb, reason = planned
        return f"{_DOES[verb]} with the next `piolet fleet apply` in which nothing stands against it: {reason}"
    if node.state is State.REVALIDATE:
        return f"waits for what job {node.vet_job} says"
    ticket = "; a ticket is open" if node.ticket else ""
    return f"an operator heals it, then `piolet fleet vet {node.name}` or `piolet fleet return {node.name}`{ticket}"


_DOES = {
    Verb.DRAIN: "is drained",
    Verb.RESUME: "resumes, on probation,",
    Verb.RESET: "has its GPU reset",
    Verb.REBOOT: "is rebooted",
    Verb.VET: "is vetted by a job of its own",
    Verb.TICKET: "gets a ticket",
}


def _next_of_wish(fleet: Fleet, node: Node, wanted: Firing, policy: Policy) -> str:
    if wanted.group in fleet.breakers:
        return f"withheld: the breaker of {wanted.group} is open"
    if wanted.mode is Mode.ADVISE and not node.approved:
        return f"waits for `piolet fleet approve {node.name}`, for {policy.course.wish_h:g} h"
    return "is drained by the next `piolet fleet apply`, as far as limits allow"
