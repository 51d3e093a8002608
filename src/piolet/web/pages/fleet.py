"""The fleet, for operators: where every node stands, what waits for a person, what the rules did. It only reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock

from starlette.requests import Request
from starlette.responses import Response

from piolet.core.errors import UsageError
from piolet.core.nodeset import NodeSet
from piolet.core.settings import FleetSettings
from piolet.fleet import center, policy, store, views
from piolet.fleet.ledger import OUT, State
from piolet.fleet.policy import Policy
from piolet.fleet.state import Fleet
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


class Ledger:
    """The fleet as its ledger tells, folded anew when the database has changed; safe to use from several threads."""

    def __init__(self, settings: FleetSettings) -> None:
        self._settings = settings
        self._folded: tuple[int, Fleet] | None = None
        self._lock = Lock()

    def fleet(self) -> Fleet:
        """Return the state of the fleet.

        Raises:
            UsageError: this site keeps none.
        """
        where = self._settings.database
        if not store.exists(where):
            raise UsageError(
                "this site keeps no fleet", remedy="`piolet fleet gather` begins one; setting fleet.database"
            )
        with self._lock, store.opened(where) as opened:
            last = opened.last()
            if self._folded is None or self._folded[0] != last:
                self._folded = (last, center.look(where))
            return self._folded[1]

    def policy(self) -> Policy:
        """Return the site's policy."""
        return policy.load(self._settings.policy)


def fleet(request: Request) -> Response:
    """The map of racks, the nodes that are not simply in, what waits for approval, breakers and rules."""
    ledger = _ledger(request)
    state, rules = ledger.fleet(), ledger.policy()
    return page(
        request,
        "fleet.html.jinja",
        racks=list(_map(state, rules)),
        nodes=views.nodes(state, rules),
        approvals=views.approvals(state),
        breakers=views.breakers(state),
        rules=views.rules(state),
        entries=state.last.seq if state.last else 0,
        at_ns=state.time_ns or None,
    )


def node(request: Request) -> Response:
    """Why a node stands where it does, on what evidence, and what comes next."""
    ledger = _ledger(request)
    told = views.explain(ledger.fleet(), request.path_params["node"], ledger.policy())
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
