"""What the ledger tells over time, of one node and of one cause over many nodes. Pure: entries in, rows out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from piolet.core.errors import UsageError
from piolet.core.nodeset import NodeSet, names
from piolet.core.text import did_you_mean
from piolet.fleet.evidence import Evidence, Kind
from piolet.fleet.ledger import Content, Entry, Firing, Instruction, State, Step, Transition
from piolet.fleet.state import Fleet
from piolet.fleet.views import Event, words


@dataclass(frozen=True, slots=True)
class NodeHistory:
    """A node over time, oldest first: what was seen, what was decided, what was done and ordered, how jobs ended.

    `gpus` are those that were last seen in it.
    """

    node: str
    state: State
    gpus: tuple[str, ...]
    evidence: tuple[Event, ...]
    decisions: tuple[Event, ...]
    actions: tuple[Event, ...]
    jobs: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Incident:
    """Failures of one cause, each soon after the one before; `rules` are those that fired on any of them."""

    cause: str
    began_ns: int
    ended_ns: int
    failures: int
    nodes: tuple[str, ...]
    jobs: tuple[str, ...]
    rules: tuple[str, ...]


def of_node(fleet: Fleet, entries: Sequence[Entry], name: str) -> NodeHistory:
    """Return the history of node `name` in `entries`, which `fleet` is the fold of.

    Raises:
        UsageError: no entry is about it.
    """
    sections: dict[str, list[Event]] = {"evidence": [], "decisions": [], "actions": [], "jobs": []}
    for entry in entries:
        section = _section(entry.content, name)
        if section:
            sections[section].append(event(entry))
    if not any(sections.values()):
        raise UsageError(f"nothing is known of {name}", remedy=did_you_mean(name, fleet.nodes))
    node, gpus = fleet.nodes.get(name), [gpu.uuid for gpu in fleet.gpus.values() if gpu.node == name]
    state = node.state if node else State.IN
    return NodeHistory(name, state, tuple(sorted(gpus)), **{key: tuple(found) for key, found in sections.items()})


def _section(content: Content, name: str) -> str:
    """Return the part of the history of node `name` that `content` belongs to, or nothing."""
    match content:
        case Evidence(kind=Kind.JOB, nodes=nodes) if name in names(nodes):
            return "jobs"
        case Evidence(node=node) if node == name:
            return "evidence"
        case Firing(node=node) | Transition(node=node) if node == name:
            return "decisions"
        case Step(node=node) | Instruction(target=node) if node == name:
            return "actions"
    return ""


def event(entry: Entry) -> Event:
    """Return an entry in words, at the time when it was observed or else written."""
    time_ns = entry.content.time_ns if isinstance(entry.content, Evidence) else entry.time_ns
    return Event(entry.seq, time_ns, words(entry))


@dataclass(slots=True)
class Failures:
    """The failures that entries tell of, by cause, with the rules that fired on each; it grows with the ledger."""

    seen: dict[str, list[Evidence]] = field(default_factory=dict)
    fired: dict[str, list[str]] = field(default_factory=dict)

    def take(self, entry: Entry) -> None:
        """Learn from `entry`."""
        match entry.content:
            case Evidence(failed=True) as seen if seen.node:
                self.seen.setdefault(seen.group, []).append(seen)
            case Firing() as firing:
                for one in firing.evidence:
                    self.fired.setdefault(one, []).append(firing.rule)

    def incidents(self, apart_ns: int) -> list[Incident]:
        """Return the failures grouped by cause, the newest first; longer silence than `apart_ns` ends one."""
        runs = [(cause, run) for cause, seen in self.seen.items() for run in _runs(_by_time(seen), apart_ns)]
        found = [_incident(cause, run, self.fired) for cause, run in runs]
        return sorted(found, key=lambda one: (-one.ended_ns, one.cause))


def incidents(entries: Iterable[Entry], apart_ns: int) -> list[Incident]:
    """Return the failures of nodes that `entries` tell of, grouped as in `Failures`."""
    failures = Failures()
    for entry in entries:
        failures.take(entry)
    return failures.incidents(apart_ns)


def _by_time(seen: Iterable[Evidence]) -> list[Evidence]:
    return sorted(seen, key=lambda one: one.time_ns)


def _runs(seen: Sequence[Evidence], apart_ns: int) -> Iterator[list[Evidence]]:
    run: list[Evidence] = []
    for one in seen:
        if run and one.time_ns - run[-1].time_ns > apart_ns:
            yield run
            run = []
        run.append(one)
    yield run


def _incident(cause: str, run: Sequence[Evidence], fired: dict[str, list[str]]) -> Incident:
    return Incident(
        cause,
        run[0].time_ns,
        run[-1].time_ns,
        len(run),
        tuple(NodeSet(one.node for one in run)),
        tuple(sorted({one.job for one in run if one.job})),
        tuple(sorted({rule for one in run for rule in fired.get(one.id, ())})),
    )
