"""Tests of a policy, written beside its rules: evidence on one node, and what must follow from it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from piolet.fleet import deciding
from piolet.fleet.evidence import Evidence, Source, made_id
from piolet.fleet.ledger import Firing, State
from piolet.fleet.policy import Policy
from piolet.fleet.rules import Observed, Trial
from piolet.fleet.state import Fleet

_NODE = "n1"
_START_NS = 1_000_000_000_000_000_000
_MANY = 10_000  # nodes, so that no breaker opens


@dataclass(frozen=True, slots=True)
class Answer:
    """What did follow."""

    trial: Trial
    to: State
    fires: tuple[str, ...]

    @property
    def right(self) -> bool:
        """Whether it is what must follow."""
        return self.to is self.trial.to and set(self.fires) == set(self.trial.fires)


def tried(policy: Policy) -> list[Answer]:
    """Return what follows from each test of `policy`."""
    return [_tried(trial, policy) for trial in policy.test]


def _tried(trial: Trial, policy: Policy) -> Answer:
    fleet = Fleet()
    fired: list[str] = []
    for number, one in enumerate(trial.evidence):
        seen = [_evidence(one, number, place) for place in range(one.spread, 0, -1)]
        written = deciding.learn(fleet, seen, policy, seen[0].time_ns, _MANY)
        contents = [entry.content for entry in written]
        fired += [fact.rule for fact in contents if isinstance(fact, Firing) and fact.node == _NODE]
    node = fleet.node(_NODE)
    return Answer(trial, State.DRAINED if node.wanted else node.state, tuple(dict.fromkeys(fired)))


def _evidence(one: Observed, number: int, place: int) -> Evidence:
    return Evidence(
        made_id(number, place),
        _START_NS + round(one.hours * 3600e9),
        one.kind,
        one.code,
        f"n{place}",
        gpu=one.gpu and f"{one.gpu}{place}",
        job=one.job,
        value=one.value,
        source=Source.NODE if one.trusted else Source.LOGBOOK,
    )
