"""The fleet, for operators: where nodes stand, what waits for a person, what went wrong together, how right rules were.

Pages read along with the ledger. Orders go the way of `piolet fleet approve`: to the service, or into the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from piolet.core.errors import Refused, UsageError
from piolet.core.nodeset import NodeSet
from piolet.core.run import Runner, SystemRunner
from piolet.core.settings import FleetSettings
from piolet.fleet import blame, history, orders, policy, store, views
from piolet.fleet.following import Follower
from piolet.fleet.ledger import OUT, Instruction, Order, State
from piolet.fleet.policy import Policy
from piolet.fleet.state import Fleet
from piolet.web.rendering import page

_LEMONS, _LIKELY, _LEMONS_S = 10, 0.5, 600.0
"""How many lemons are shown at most, how likely each must be, and for how many seconds a ranking is shown."""

_INCIDENTS, _APART_NS = 50, 600 * 10**9
_MOST_HOURS = 8784


@dataclass(slots=True)
class Desk:
    """What the pages of the fleet share: the ledger that is followed, and the last ranking of lemons."""

    settings: FleetSettings
    runner: Runner = field(default_factory=SystemRunner)
    follower: Follower = field(init=False)
    ranked: tuple[float, list[blame.Blame]] = (-_LEMONS_S, [])

    def __post_init__(self) -> None:
        self.follower = Follower(self.settings.database)

    def policy(self) -> Policy:
        """Return the site's policy."""
        return policy.load(self.settings.policy)

    def lemons(self) -> list[blame.Blame]:
        """Return the likeliest lemons; they are ranked anew every ten minutes, since that takes seconds."""
        if time.monotonic() - self.ranked[0] >= _LEMONS_S:
            with self.follower.known() as known:
                observed, now_ns = known.fleet.observed, max(time.time_ns(), known.fleet.time_ns)
            self.ranked = (time.monotonic(), blame.ranking(observed, now_ns)[:_LEMONS])
        return [one for one in self.ranked[1] if one.lemon >= _LIKELY]


@dataclass(frozen=True, slots=True)
class Tile:
    """A node on the map."""

    node: str
    state: State
    tone: str


def tone(state: State) -> str:
    """Return how a node is shown on the map: in, watched or out."""
    return "in" if state is State.IN else "out" if state in OUT else "watched"


def fleet(request: Request) -> Response:
    """The map of racks, what waits for approval, open breakers, and the nodes that are not simply in."""
    desk = _desk(request)
    rules = desk.policy()
    with desk.follower.known() as known:
        state = known.fleet
        shown: dict[str, Any] = {
            "racks": list(_map(state, rules)),
            "nodes": views.nodes(state, rules),
            "approvals": views.approvals(state),
            "breakers": views.breakers(state),
            "entries": state.last.seq if state.last else 0,
            "at_ns": state.time_ns or None,
        }
    return page(request, "fleet.html.jinja", **shown)


def node(request: Request) -> Response:
    """Why a node stands where it does, on what evidence, what comes next, and how jobs ended there."""
    desk, name = _desk(request), request.path_params["node"]
    with desk.follower.known() as known:
        told = views.explain(known.fleet, name, desk.policy())
        jobs = [history.event(entry) for entry in known.jobs.get(name, ())]
        waits = any(row.node == name for row in views.approvals(known.fleet))
    return page(request, "fleet_node.html.jinja", told=told, jobs=jobs, waits=waits, out=told.state in OUT)


def incidents(request: Request) -> Response:
    """Failures of one cause that followed one another, the newest first."""
    with _desk(request).follower.known() as known:
        found = known.failures.incidents(_APART_NS)
    return page(request, "fleet_incidents.html.jinja", found=found[:_INCIDENTS], count=len(found))


def rules(request: Request) -> Response:
    """How right rules and checks were, and which nodes are lemons."""
    desk = _desk(request)
    with desk.follower.known() as known:
        rows = known.record.rows(max(time.time_ns(), known.fleet.time_ns))
    return page(request, "fleet_rules.html.jinja", rules=rows, lemons=desk.lemons())


async def order(request: Request) -> Response:
    """Give the order of a form, in the name of who sent it, and return to the page of what it is about."""
    desk = _desk(request)
    said = _said(await request.form(), request.state.viewer.user)
    await run_in_threadpool(orders.give, desk.settings, desk.runner, said)
    about_node = said.order is not Order.CLOSE_BREAKER
    return RedirectResponse(f"/fleet/nodes/{quote(said.target, safe='')}" if about_node else "/fleet", status_code=303)


def _said(form: FormData, user: str) -> Instruction:
    try:
        order, target, reason = Order(str(form.get("order"))), str(form["target"]), str(form.get("reason", ""))[:1000]
        hours = _hours(str(form["hours"])) if order is Order.HOLD else None
    except (KeyError, ValueError) as error:
        raise UsageError(f"this is no order: {error}", remedy="open the page of the node and choose again") from error
    return orders.instruction(order, target, user, reason, hours)


def _hours(given: str) -> float:
    hours = float(given)
    if not 0 < hours <= _MOST_HOURS:
        raise ValueError(f"a hold is for at most {_MOST_HOURS} hours")
    return hours


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.fleet
    if not request.state.viewer.operator:
        raise Refused("the fleet is for operators", remedy="ask for web.operators to name you or a group of yours")
    if not store.exists(desk.settings.database):
        raise UsageError("this site keeps no fleet", remedy="`piolet fleet gather` begins one; setting fleet.database")
    return desk


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
