"""The list of jobs."""

from __future__ import annotations

import re
import time
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from piolet.core.errors import UsageError
from piolet.watch import JobFilter
from piolet.web.rendering import page

PAGE = 50
_LONGEST_NUMBER = 9
_SINCE = re.compile(r"(\d{1,4})([hd])")
_UNITS_S = {"h": 3600, "d": 86400}
STATES = ("RUNNING", "ENDED", "COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED")


def jobs(request: Request) -> Response:
    """The visible jobs, filtered by the query: text, user, cluster, state, since, findings, page."""
    query = request.query_params
    wanted = JobFilter(
        text=query.get("text", ""),
        user=query.get("user", ""),
        cluster=query.get("cluster", ""),
        state=query.get("state", ""),
        with_findings=query.get("findings") == "1",
    )
    wanted = replace(wanted, since_ns=_since(query.get("since", "")))
    number = page_number(request)
    found = request.state.jobs.find(wanted, first=(number - 1) * PAGE, most=PAGE)
    rest = "&".join(f"{name}={value}" for name, value in query.items() if name != "page")
    return page(
        request,
        "jobs.html.jinja",
        found=found,
        wanted=wanted,
        query=query,
        number=number,
        last=max(1, -(-found.total // PAGE)),
        rest=rest,
        states=STATES,
    )


def page_number(request: Request) -> int:
    """Return which page of a list is asked for, from 1."""
    text = request.query_params.get("page", "1")
    return max(1, int(text)) if text.isdecimal() and len(text) < _LONGEST_NUMBER else 1


def _since(text: str) -> int | None:
    if not text:
        return None
    match = _SINCE.fullmatch(text)
    if not match:
        raise UsageError(f'"{text}" is no length of time', remedy="such as 12h or 7d")
    return time.time_ns() - int(match[1]) * _UNITS_S[match[2]] * 1_000_000_000
