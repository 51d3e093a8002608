"""One job: its page, the page of one of its nodes, its plots' data, its report and its files."""

from __future__ import annotations

import asyncio
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from piolet.core.errors import UsageError
from piolet.logbook import ownership
from piolet.logbook.reader import rereading
from piolet.score.overview import NodeStory
from piolet.watch import Book, Metric, Split, notes
from piolet.watch.access import Grant
from piolet.watch.book import DOCUMENTS
from piolet.web import plots, views
from piolet.web.pages.listing import page_number
from piolet.web.rendering import page
from piolet.web.views import JobView, Judged

REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; sandbox allow-scripts"
)
"""The report runs apart from the application: it has no cookies here, and its own policy allows its one script."""

FIRST_S = 0.9
"""How long a page waits for what it shows, before it is sent without."""

MOST_NODES = 64
"""Rows of a table of nodes."""

_CHUNK = 1 << 20


@contextmanager
def opened(request: Request, name: str = "") -> Iterator[Book]:
    """Open the job that the path names, or `name` as ``cluster/job``, if the visitor may see it.

    Raises:
        UsageError: there is no such job for this visitor, or a record of it is a link to somebody else's file.
    """
    cluster, _, job_id = (
        name.partition("/") if name else (request.path_params["cluster"], "", request.path_params["job"])
    )
    with request.state.jobs.open(cluster, job_id) as book:
        found = [path for path in _records(book) if path.is_symlink() or path.exists()]
        if len(ownership.own_files(book.logbook, found, book.grant.job.owner)) < len(found):
            raise UsageError("a record of this logbook is not its owner's own file", remedy="ask its owner")
        yield book


def granted(request: Request) -> Grant:
    """Return the grant for the job that the path names; see `opened`."""
    with opened(request) as book:
        return book.grant


def _records(book: Book) -> list[Path]:
    """Return the records that are read as a whole; segments are looked at one by one where they are read."""
    logbook = book.logbook
    return [logbook.outcome, logbook.findings, logbook.environment_lock, *logbook.vet.glob("*")]


async def job(request: Request) -> Response:
    """The page of a job; while its samples are read for the first time, one that waits for them.

    A fragment, which the page's script asks for, is always whole.
    """
    grant = await run_in_threadpool(granted, request)
    kept, loop, whole = request.app.state.kept, asyncio.get_running_loop(), bool(request.headers.get("x-fragment"))
    until = loop.time() + FIRST_S
    view = await kept.answer(grant, views.job_view, None if whole else FIRST_S)
    judging = partial(views.judged, jobs=request.state.jobs)
    judged = await kept.answer(grant, judging, None if whole else max(0.0, until - loop.time()))
    if view.value is None:
        return page(request, "reading.html.jinja", summary=grant.job)
    stamp = view.stamp and judged.stamp
    return await run_in_threadpool(_job, request, grant, view.value, judged.value, stamp)


def _job(request: Request, grant: Grant, shown: JobView, told: Judged | None, stamp: str) -> Response:
    chosen = [_metric(text) for text in request.query_params.getlist("plot")]
    findings = notes.cited(told.findings, request.state.jobs, grant.job) if told and told.findings.findings else None
    return page(
        request,
        "job.html.jinja",
        summary=grant.job,
        record=shown.overview.job,
        view=shown,
        stamp=stamp,
        judged=told,
        findings=findings.findings if findings else (),
        notes=notes.read(grant.job.logbook, grant.job.owner),
        gpus=views.shown_gpus(shown),
        nodes=shown.nodes[:MOST_NODES],
        notebooks=request.app.state.editors is not None,
        plots=[*shown.plots, *(metric for metric in chosen if metric not in shown.plots)],
        query=request.query_params,
    )


async def nodes(request: Request) -> Response:
    """All nodes of a job, those of which there is something to tell first; `text` is looked for in their names."""
    grant = await run_in_threadpool(granted, request)
    view = await request.app.state.kept.answer(grant, views.job_view)
    text, number = request.query_params.get("text", ""), page_number(request)
    found = [row for row in view.value.nodes if text.casefold() in row.story.node.casefold()]
    return page(
        request,
        "nodes.html.jinja",
        summary=grant.job,
        nodes=found[(number - 1) * MOST_NODES : number * MOST_NODES],
        text=text,
        total=len(found),
        number=number,
        last=max(1, -(-len(found) // MOST_NODES)),
    )


async def node(request: Request) -> Response:
    """The page of a node of a job: its GPUs one by one, what vetting said, what happened there."""
    name = request.path_params["node"]
    grant = await run_in_threadpool(granted, request)
    view = (await request.app.state.kept.answer(grant, views.job_view)).value
    stories = [row.story for row in view.nodes if row.story.node == name]
    if not stories:
        raise UsageError(f"this job has no node {name}", remedy="see the nodes of the job")
    return await run_in_threadpool(_node, request, view, stories[0])


@rereading
def _node(request: Request, view: JobView, story: NodeStory) -> Response:
    chosen = [_metric(text) for text in request.query_params.getlist("plot")]
    usual = [metric for metric in view.plots if metric.family != "user"]
    with opened(request) as book:
        return page(
            request,
            "node.html.jinja",
            summary=book.grant.job,
            story=story,
            checks=[check for check in book.checks() if check.node == story.node],
            events=book.events(node=story.node, most=views.MOST_EVENTS),
            gpus=views.shown_gpus(view, story.node),
            plots=[*usual, *(metric for metric in chosen if metric not in usual)],
        )


@rereading
def series(request: Request) -> Response:
    """The data of a plot: metric, split, node, from, to."""
    query = request.query_params
    try:
        split = Split(query.get("split", "job"))
        from_s, to_s = (float(query[name]) if name in query else None for name in ("from", "to"))
    except ValueError as error:
        raise UsageError(
            f"not a plot: {error}", remedy="from and to are seconds; split is job, node or device"
        ) from error
    with opened(request) as book:
        made = plots.plot(
            book, _metric(query.get("metric", "")), split=split, node=query.get("node", ""), from_s=from_s, to_s=to_s
        )
    return JSONResponse(made)


async def spark(request: Request) -> Response:
    """A small picture of how busy the job's GPUs were."""
    grant = await run_in_threadpool(granted, request)
    found = await request.app.state.kept.answer(grant, views.spark)
    headers = {"cache-control": "private, max-age=60"}
    return Response(plots.spark(found.value), media_type="image/svg+xml", headers=headers)


@rereading
def report(request: Request) -> Response:
    """The report of a job."""
    with opened(request) as book:
        return HTMLResponse(views.report(book), headers={"content-security-policy": REPORT_POLICY})


def logbook(request: Request) -> Response:
    """The whole logbook as a tar archive, made while it is sent; files that are not the owner's stay out."""
    with opened(request) as book:
        names = [path for path in sorted(book.logbook.path.rglob("*")) if path.is_file()]
        own = ownership.own_files(book.logbook, names, book.grant.job.owner)
        title = f"{book.grant.job.cluster}-{book.grant.job.job_id}"
    headers = {"content-disposition": f'attachment; filename="{title}.tar"'}
    return StreamingResponse(_archived(book.logbook.path, own, title), media_type="application/x-tar", headers=headers)


def document(request: Request) -> Response:
    """One of the JSON files of a logbook."""
    name = request.path_params["name"]
    if name not in DOCUMENTS or not name.endswith(".json"):
        raise UsageError(f"no document {name}", remedy=f"there are {', '.join(DOCUMENTS[1:])}")
    with opened(request) as book:
        return Response(book.document(name).read_bytes(), media_type="application/json")


def _metric(text: str) -> Metric:
    family, _, column = text.partition(".")
    metric = Metric(family, column)
    metric.check()
    return metric


def _archived(root: Path, paths: list[Path], title: str) -> Iterator[bytes]:
    """Yield a tar archive of files that may grow meanwhile: each as long as it was when its turn came."""
    for path in paths:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            entry = tarfile.TarInfo(f"{title}/{path.relative_to(root)}")
            entry.size, entry.mtime = found.st_size, int(found.st_mtime)
            yield entry.tobuf(tarfile.PAX_FORMAT)
            left = entry.size
            while left > 0:
                chunk = file.read(min(_CHUNK, left)) or b"\0" * min(_CHUNK, left)
                left -= len(chunk)
                yield chunk
            yield b"\0" * (-entry.size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)
