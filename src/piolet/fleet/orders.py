"""Giving an operator's order: to the service if the site has one, else into the ledger, as this process may."""

from __future__ import annotations

import json
import time
from typing import Any

from piolet.core.errors import PioletError, Refused, UsageError
from piolet.core.run import Runner
from piolet.core.settings import FleetSettings
from piolet.fleet import center, policy, spool
from piolet.fleet.ledger import Instruction, Order


def give(settings: FleetSettings, runner: Runner, said: Instruction) -> None:
    """Have `said` written, by whoever writes the ledger of this site.

    Raises:
        UsageError, Refused: there is nothing that the order could be about.
        PioletError: the service does not answer or refuses, or another process decides; the message says which.
    """
    if settings.service:
        _send(settings, runner, said)
    else:
        with center.opened(settings.database, policy.load(settings.policy)) as opened:
            opened.instruct(said)


def instruction(order: Order, target: str, user: str, reason: str = "", hours: float | None = None) -> Instruction:
    """Return the order of `user`, which a hold ends after `hours`."""
    return Instruction(order, target, user, reason, time.time_ns() + round(hours * 3600e9) if hours else None)


def _send(settings: FleetSettings, runner: Runner, said: Instruction) -> None:
    hours = (said.until_ns - time.time_ns()) / 3600e9 if said.until_ns else None
    values = {"order": said.order, "target": said.target, "user": said.user, "reason": said.reason, "hours": hours}
    answer = spool.poster(settings, runner)("/v1/orders", json.dumps(values).encode())
    if answer.status_code != 200:  # noqa: PLR2004 - HTTP's number for yes
        raise _refusal(answer, settings)


def _refusal(answer: Any, settings: FleetSettings) -> PioletError:  # noqa: ANN401 - see spool.Post
    try:
        said = answer.json()
    except ValueError:
        said = {"error": answer.text[:200]}
    what, remedy = str(said.get("error", answer.status_code)), str(said.get("next", ""))
    kind = {403: Refused, 422: UsageError}.get(answer.status_code, PioletError)
    return kind(what, where=str(said.get("where") or settings.service), remedy=remedy)
