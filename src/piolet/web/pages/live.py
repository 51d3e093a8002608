"""Following a job: server-sent events that say when its logbook changed, and when it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from piolet.logbook.layout import Logbook
from piolet.web.pages.job import opened
from piolet.web.views import stamp

PERIOD_S = 2.0
"""Seconds between looks at the logbook; a recorder flushes less often."""


async def live(request: Request) -> Response:
    """Send `changed` when there is something new and `ended` once the job has an outcome."""
    logbook = await run_in_threadpool(_logbook, request)
    return StreamingResponse(_changes(request, logbook), media_type="text/event-stream")


def _logbook(request: Request) -> Logbook:
    with opened(request) as book:
        return book.logbook


async def _changes(request: Request, logbook: Logbook) -> AsyncIterator[str]:
    before = request.query_params.get("since", "")  # what the page shows; it may be older than this request
    yield ": the logbook is watched\n\n"
    while not await request.is_disconnected() and not request.app.state.closing.is_set():
        if logbook.outcome.exists():
            yield "event: ended\ndata:\n\n"
            return
        now = await run_in_threadpool(stamp, logbook)
        yield "event: changed\ndata:\n\n" if now != before else ": nothing new\n\n"
        before = now
        await asyncio.sleep(PERIOD_S)
