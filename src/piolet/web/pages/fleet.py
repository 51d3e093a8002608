"""The fleet, for operators: where every node stands, what waits for a person, what the rules did. It only reads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock

from starlette.requests import Request
from starlette.responses import Response

from piolet.core.errors import UsageError
from piolet.core.nodeset import NodeSet
from piolet.core.settings import FleetSettings
from piolet.fleet import blame, center, policy, precision, store, views
from piolet.fleet.ledger import OUT, Entry, State
from piolet.fleet.policy import Policy
from piolet.fleet.state import Fleet, fold
from piolet.web.rendering import page


def tone(state: State) -> str:
    """Return how a node is shown on the map: in, watched or out."""
    return "in" if state is State.IN else "out" if state in OUT else "watched"


@dataclass(frozen=True, slots=True)
class Tile:
    """A node on the map."""

    node: str
    state: State
    tone: str


_LEMONS, _LIKELY = 10, 0.5
"""How many lemons are shown at most, and how likely each must be."""


@dataclass(frozen=True, slots=True)
class Known:
    """What pages show of the ledger up to entry `last`: its state, how right rules were, which nodes are lemons."""

    last: int
    fleet: Fleet
    rules: list[precision.Row]
    lemons: list[blame.Blame]


def _known(entries: list[Entry]) -> Known:
    fleet = fold(Fleet(), entries)
    now_ns = max(time.time_ns(), fleet.time_ns)
    lemons = [one for one in blame.ranking(fleet.observed, now_ns)[:_LEMONS] if one.lemon >= _LIKELY]
    return Known(entries[-1].seq if entries else 0, fleet, precision.rows(entries, now_ns), lemons)


class Ledger:
    """The fleet as its ledger tells, read anew when there is more of it; safe to use from several threads."""

    def __init__(self, settings: FleetSettings) -> None:
        self._settings = settings
        self._known: Known | None = None
        self._lock = Lock()

    def known(self) -> Known:
        """Return what the ledger tells.

        Raises:
            UsageError: this site keeps no fleet.
        """
        where = self._settings.database
        if not store.exists(where):
            raise UsageError(
                "this site keeps no fleet", remedy="`piolet fleet gather` begins one; setting fleet.database"
            )
        with self._lock, store.opened(where) as opened:
            if self._known is None or self._known.last != opened.last():
                self._known = _known(center.entries(where))
            return self._known

    def policy(self) -> Policy:
        """Return the site's policy."""
        return policy.load(self._settings.policy)


def fleet(request: Request) -> Response:
    """The map of racks, the nodes that are not simply in, what waits for approval, breakers and rules."""
    ledger = _ledger(request)
    known, rules = ledger.known(), ledger.policy()
    state = known.fleet
    return page(
        request,
        "fleet.html.jinja",
        racks=list(_map(state, rules)),
        nodes=views.nodes(state, rules),
        approvals=views.approvals(state),
        breakers=views.breakers(state),
        rules=known.rules,
        lemons=known.lemons,
        entries=state.last.seq if state.last else 0,
        at_ns=state.time_ns or None,
    )


def node(request: Request) -> Response:
    """Why a node stands where it does, on what evidence, and what comes next."""
    ledger = _ledger(request)
    told = views.explain(ledger.known().fleet, request.path_params["node"], ledger.policy())
    return page(request, "fleet_node.html.jinja", told=told)


def _ledger(request: Request) -> Ledger:
    if not request.state.viewer.operator:
        raise UsageError("the fleet is for operators", remedy="ask for web.operators to name you or a group of yours")
    ledger: Ledger = request.app.state.ledger
    return ledger


def _map(state: Fleet, rules: Policy) -> Iterator[tuple[str, tuple[Tile, ...]]]:
    """Yield the racks with their nodes; those that no rack names come last."""
    placed: set[str] = set()
    for rack, names in sorted(rules.racks.items()):
        inside = list(NodeSet(names))
        placed |= set(inside)
        yield rack, tuple(_tile(state, name) for name in inside)
    rest = NodeSet([name for name in state.nodes if name not in placed])
    if len(rest):
        yield "in no rack" if placed else "all nodes", tuple(_tile(state, name) for name in rest)


def _tile(state: Fleet, name: str) -> Tile:
    found = state.nodes.get(name)
    where = found.state if found else State.IN
    return Tile(name, where, tone(where))
