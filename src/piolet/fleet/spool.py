"""What a node has to tell: kept in a directory until the service has it, so that nothing is lost while it is away.

A report is one file, written atomically. It is removed when the service has answered that it is on its disk; a report
that the service will never take is set aside in `refused`, with the reason beside it. Sending twice is harmless.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piolet.core.errors import PioletError, UsageError, storage_errors
from piolet.core.files import read_json, write_json, write_text
from piolet.core.run import Runner
from piolet.core.settings import FleetSettings
from piolet.fleet import identity

BATCH = 1000
"""Observations of one report."""

_TIMEOUT_S = 30.0
_NEVER = frozenset({400, 403, 413, 422})
"""Statuses that will be the same tomorrow; all others are worth another try."""

Post = Callable[[str, bytes], Any]
"""Sends a body to a path, and returns an answer with `status_code`, `text` and `json()`."""


@dataclass(frozen=True, slots=True)
class Sent:
    """How a delivery went: observations that were new to the service, reports it refused, reports still waiting."""

    new: int = 0
    refused: int = 0
    waiting: int = 0
    why: str = ""


def keep(directory: Path, items: Iterable[dict[str, Any]]) -> int:
    """Write `items` as reports below `directory`; return how many items."""
    kept = list(items)
    for start in range(0, len(kept), BATCH):
        name = f"{time.time_ns():020d}-{os.getpid()}-{start // BATCH:04d}.json"
        write_json(directory / name, {"evidence": kept[start : start + BATCH]})
    return len(kept)


def deliver(directory: Path, post: Post) -> Sent:
    """Send the reports of `directory`, oldest first, until one cannot be sent."""
    with storage_errors(directory, "list the reports that wait"):
        waiting = sorted(directory.glob("*.json")) if directory.is_dir() else []
    new = refused = 0
    for place, path in enumerate(waiting):
        why = ""
        try:
            answer = post("/v1/evidence", path.read_bytes())
        except (OSError, PioletError) as error:
            return Sent(new, refused, len(waiting) - place, str(error))
        if answer.status_code == 200:  # noqa: PLR2004 - HTTP's number for yes
            new += answer.json()["new"]
            path.unlink(missing_ok=True)
        elif answer.status_code in _NEVER:
            refused += 1
            _set_aside(path, answer.text)
        else:
            why = f"the service answers {answer.status_code}: {answer.text[:200]}"
            return Sent(new, refused, len(waiting) - place, why)
    return Sent(new, refused)


def _set_aside(path: Path, why: str) -> None:
    with storage_errors(path, "set a refused report aside"):
        aside = path.parent / "refused"
        aside.mkdir(exist_ok=True)
        write_text(aside / f"{path.stem}.why", why + "\n")
        path.replace(aside / path.name)


def read_items(path: Path) -> list[dict[str, Any]]:
    """Read a report that somebody else wrote: ``{"evidence": [...]}``; what is in it is the service's to judge."""
    found = read_json(path)
    items = found.get("evidence") if isinstance(found, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UsageError("no report", where=str(path), remedy='write {"evidence": [{"id": ..., "kind": ...}]}')
    return items


def poster(settings: FleetSettings, runner: Runner) -> Post:
    """Return what sends to the service of the settings, with the token of the settings or as this node.

    Raises:
        UsageError: no service is set.
    """
    import httpx2  # noqa: PLC0415 - slow to import

    if not settings.service:
        raise UsageError("no service is set", remedy="set fleet.service to the address of `piolet fleet serve`")
    trusted = ssl.create_default_context(cafile=str(settings.authority) if settings.authority else None)

    def post(path: str, body: bytes) -> Any:  # noqa: ANN401 - see Post
        headers = {"Authorization": identity.header(body, runner, settings), "Content-Type": "application/json"}
        try:
            url = settings.service.rstrip("/") + path
            return httpx2.post(url, content=body, headers=headers, timeout=_TIMEOUT_S, verify=trusted)
        except httpx2.HTTPError as error:
            raise PioletError(
                f"the fleet's service does not answer: {error}", where=settings.service, remedy="is it running?"
            ) from error

    return post
