"""Which replicas of a service requests can go to now: those on Slurm whose beat goes on, and fixed addresses.

Reading directories is left to a thread; choosing is done in the event loop, so nothing here is locked.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from piolet.core.errors import PioletError
from piolet.core.log import logger
from piolet.core.nodeset import NodeSet
from piolet.service.gateway.settings import Gateway
from piolet.service.slurm.places import Endpoint, Place

MISSED_BEATS = 3
"""Beats that may be missing before a replica's attendant counts as gone."""

SUSPECT_S = 5.0
"""How long a replica that did not answer is asked last."""

FIRST_PORT = 1024


@dataclass(slots=True, eq=False)
class Replica:
    """One engine: where it is, how many requests are there now, and since when nothing speaks for it."""

    url: str
    key: str = ""
    period_s: float = float("inf")
    beat: int = 0
    beaten_s: float = 0.0
    outstanding: int = 0
    suspect_until_s: float = 0.0

    def fresh(self, now_s: float) -> bool:
        """Tell whether its attendant, if it has one, still speaks for it."""
        return now_s - self.beaten_s <= MISSED_BEATS * self.period_s + 1


@dataclass(slots=True)
class Replicas:
    """The replicas of every service by its name; `clock` is monotonic seconds."""

    clock: Callable[[], float] = time.monotonic
    services: dict[str, dict[str, Replica]] = field(default_factory=dict)

    def choose(self, service: str, tried: Collection[Replica] = ()) -> Replica | None:
        """Return the replica to ask: not yet tried, not suspect, with the fewest requests; None if there is none."""
        now_s = self.clock()

        def order(each: Replica) -> tuple[bool, bool, int, float]:
            return each in tried, each.suspect_until_s > now_s, each.outstanding, random.random()  # noqa: S311 - to spread

        fresh = [each for each in self.services.get(service, {}).values() if each.fresh(now_s)]
        return min(fresh, key=order, default=None)

    def ready(self, service: str) -> int:
        """Return how many replicas requests can go to."""
        return sum(each.fresh(self.clock()) for each in self.services.get(service, {}).values())

    def suspect(self, replica: Replica) -> None:
        """Ask `replica` last for a while."""
        replica.suspect_until_s = self.clock() + SUSPECT_S

    def update(self, seen: Mapping[str, Iterable[Replica]]) -> None:
        """Take over what was seen; a replica that is known keeps its count, and its beat if that stands still."""
        now_s = self.clock()
        self.services = {
            name: {each.url: self._known(name, each, now_s) for each in replicas} for name, replicas in seen.items()
        }

    def _known(self, service: str, seen: Replica, now_s: float) -> Replica:
        known = self.services.get(service, {}).get(seen.url)
        if known is None or known.key != seen.key:
            seen.beaten_s = now_s
            return seen
        known.period_s = seen.period_s
        if known.beat != seen.beat:
            known.beat, known.beaten_s = seen.beat, now_s
        return known


def look(gateway: Gateway, base: Path) -> dict[str, list[Replica]]:
    """Return the replicas of every service as they are announced now; a service that cannot be read has none."""
    allowed = frozenset(NodeSet(gateway.nodes))
    seen: dict[str, list[Replica]] = {}
    for name, behind in gateway.services.items():
        seen[name] = [Replica(url) for url in behind.urls]
        if behind.directory:
            seen[name] += _announced(name, Place(base / behind.directory), allowed)
    return seen


def _announced(name: str, place: Place, allowed: Collection[str]) -> list[Replica]:
    try:
        endpoints = place.endpoints()
    except PioletError as error:
        logger("gateway").warning("unreadable", service=name, reason=error.what, where=error.where)
        return []
    return [_replica(each) for each in endpoints if _is_allowed(name, each, allowed)]


def _is_allowed(name: str, endpoint: Endpoint, allowed: Collection[str]) -> bool:
    """Whoever may write into the directory of a service must not send its requests anywhere else than to its nodes."""
    if endpoint.host in allowed and endpoint.port >= FIRST_PORT:
        return True
    logger("gateway").warning("not a node", service=name, job=endpoint.job, host=endpoint.host, port=endpoint.port)
    return False


def _replica(endpoint: Endpoint) -> Replica:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return Replica(f"http://{host}:{endpoint.port}", endpoint.key, endpoint.period_s, endpoint.beat)
