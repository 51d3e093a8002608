"""Following a job: server-sent events that say when its logbook changed, and when it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from piolet.logbook.layout import Logbook
from piolet.web.kept import stamp
from piolet.web.pages.job import granted

PERIOD_S = 2.0
"""Seconds between looks at the logbook; a recorder flushes less often."""


async def live(request: Request) -> Response:
    """Send `changed` when there is something new and `ended` once the job has an outcome."""
    grant = await run_in_threadpool(granted, request)
    return StreamingResponse(_changes(request, grant.job.logbook), media_type="text/event-stream")


async def _changes(request: Request, logbook: Logbook) -> AsyncIterator[str]:
    before = request.query_params.get("since", "")  # what the page shows; it may be older than this request
    yield ": the logbook is watched\n\n"
    while not await request.is_disconnected():
        if logbook.outcome.exists():
            yield "event: ended\ndata:\n\n"
            return
        now = await run_in_threadpool(stamp, logbook)
        yield "event: changed\ndata:\n\n" if now != before else ": nothing new\n\n"
        before = now
        await asyncio.sleep(PERIOD_S)
