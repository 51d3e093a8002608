"""One job: its page, the page of one of its nodes, its plots' data, its report and its files."""

from __future__ import annotations

import asyncio
import os
import tarfile
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from piolet.core.errors import UsageError
from piolet.logbook import ownership
from piolet.logbook.reader import rereading
from piolet.score.model import GpuScore
from piolet.score.overview import NodeStory
from piolet.score.report import lowest
from piolet.watch import Book, Metric, Split, notes
from piolet.watch.access import Grant
from piolet.watch.book import DOCUMENTS, Event
from piolet.web import plots, views
from piolet.web.glance import MOST_ROWS, Glance, Glances, Group, heat_of_nodes
from piolet.web.kept import Answer, Kept
from piolet.web.pages.listing import page_number
from piolet.web.plots import Plotted
from piolet.web.rendering import page
from piolet.web.views import JobView, Judged

REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; sandbox allow-scripts"
)
"""The report runs apart from the application: it has no cookies here, and its own policy allows its one script."""

FIRST_S = 0.9
"""How long a page waits for what it shows, before it is sent without."""

MISSING_S = 25.0
"""How long a page's script waits for what the page was sent without, before it asks again."""

FEW = 16
"""Rows of the tables of nodes and GPUs of a job that is shown by groups."""

T = TypeVar("T")

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Told(Generic[T]):
    """What is known of a question: an answer, of the logbook when it was as `stamp` says, or why there is none."""

    value: T | None
    stamp: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """What a job's page knows when it is sent."""

    glance: Told[Glance]
    events: Told[tuple[Event, ...]]
    view: Told[JobView]
    judged: Told[Judged]

    @property
    def missing(self) -> bool:
        """Whether more is to come."""
        return not all(each.stamp or each.problem for each in (self.glance, self.events, self.view, self.judged))

    @property
    def stamp(self) -> str:
        """The state of the logbook that all of it is about; empty if it is about several."""
        stamps = {each.stamp for each in (self.glance, self.view, self.judged)}
        return stamps.pop() if len(stamps) == 1 else ""

    @property
    def problems(self) -> dict[str, None]:
        """Why some of it will never come."""
        return dict.fromkeys(each.problem for each in (self.glance, self.view, self.judged) if each.problem)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that have values, as far as they are known."""
        return self.view.value.metrics if self.view.value else self.glance.value.metrics if self.glance.value else ()

    @property
    def gpus(self) -> tuple[GpuScore, ...]:
        """The GPUs; those of the view have labels."""
        view, glance = self.view.value, self.glance.value
        return view.overview.score.gpus if view else glance.gpus if glance else ()


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
    return [logbook.outcome, logbook.findings, logbook.environment_lock, *logbook.vet.glob("*.jsonl")]


async def job(request: Request) -> Response:
    """The page of a job, with what is known of it by then; one that waits, if that is nothing.

    A fragment, which the page's script asks for, waits longer for what is missing.
    """
    grant = await run_in_threadpool(granted, request)
    kept: Kept = request.app.state.kept
    wait_s = MISSING_S if request.headers.get("x-fragment") else FIRST_S
    known = Known(
        *await asyncio.gather(
            _told(kept.answer(grant, request.app.state.glances.glance, wait_s, quick=True)),
            _told(kept.answer(grant, views.events, wait_s, quick=True)),
            _told(kept.answer(grant, views.job_view, wait_s)),
            _told(kept.answer(grant, partial(views.judged, jobs=request.state.jobs), wait_s)),
        )
    )
    if known.glance.value is None and not known.glance.problem:
        return page(request, "reading.html.jinja", summary=grant.job)
    return await run_in_threadpool(_job, request, grant, known)


async def _told(answer: Awaitable[Answer[T]]) -> Told[T]:
    """Wait for an answer; that there will be none, since the job is too large, is one."""
    try:
        found = await answer
    except UsageError as error:
        return Told(None, "", f"{error.what}. {error.remedy}")
    return Told(found.value, found.stamp)


def _job(request: Request, grant: Grant, known: Known) -> Response:
    chosen = [_metric(text) for text in request.query_params.getlist("plot")]
    plotted, glance = views.first_plots(known.metrics), known.glance.value
    found = known.judged.value.findings if known.judged.value else None
    with opened(request) as book:
        return page(
            request,
            "job.html.jinja",
            summary=grant.job,
            record=book.job,
            outcome=book.outcome(),
            known=known,
            findings=notes.cited(found, request.state.jobs, grant.job).findings if found and found.findings else (),
            notes=notes.read(grant.job.logbook, grant.job.owner),
            stacks=book.stacks(),
            gpus=lowest(known.gpus)[: FEW if glance and glance.groups else None],
            most_nodes=FEW if glance and glance.groups else None,
            notebooks=request.app.state.editors is not None,
            plots=[*plotted, *(metric for metric in chosen if metric not in plotted)],
            query=request.query_params,
        )


async def nodes(request: Request) -> Response:
    """All nodes of a job, those of which there is something to tell first, or one `group` of them with its plots.

    `text` is looked for in their names.
    """
    grant = await run_in_threadpool(granted, request)
    glance = (await request.app.state.kept.answer(grant, request.app.state.glances.glance, quick=True)).value
    query = request.query_params
    if "group" in query:
        return await run_in_threadpool(_group, request, glance)
    text, number = query.get("text", ""), page_number(request)
    found = [row for row in glance.nodes if text.casefold() in row.story.node.casefold()]
    return page(
        request,
        "nodes.html.jinja",
        summary=grant.job,
        nodes=found[(number - 1) * MOST_ROWS : number * MOST_ROWS],
        text=text,
        total=len(found),
        number=number,
        last=max(1, -(-len(found) // MOST_ROWS)),
    )


@rereading
def _group(request: Request, glance: Glance) -> Response:
    with opened(request) as book:
        glances: Glances = request.app.state.glances
        groups = glances.groups(book)
        place = _place(groups, request.query_params["group"])
        group, digest = groups[place], glances.digest(book)
        return page(
            request,
            "group.html.jinja",
            summary=book.grant.job,
            group=group,
            row=glance.groups[place],
            before=groups[place - 1] if place else None,
            after=groups[place + 1] if place + 1 < len(groups) else None,
            heat=heat_of_nodes(digest, group.nodes) if digest else None,
            nodes=[row for row in glance.nodes if row.story.node in group.nodes],
            plots=views.first_plots(glance.metrics),
        )


def _place(groups: Sequence[Group], key: str) -> int:
    """Return which group has the node `key`."""
    for place, group in enumerate(groups):
        if key in group.nodes:
            return place
    raise UsageError(f"this job has no group of a node {key}", remedy="see the nodes of the job")


async def node(request: Request) -> Response:
    """The page of a node of a job: its GPUs one by one, what vetting said, what happened there."""
    name = request.path_params["node"]
    grant = await run_in_threadpool(granted, request)
    kept = request.app.state.kept
    glance = (await kept.answer(grant, request.app.state.glances.glance, quick=True)).value
    stories = [row.story for row in glance.nodes if row.story.node == name]
    if not stories:
        raise UsageError(f"this job has no node {name}", remedy="see the nodes of the job")
    view = await _told(kept.answer(grant, views.job_view, FIRST_S))
    return await run_in_threadpool(_node, request, glance, view.value, stories[0])


@rereading
def _node(request: Request, glance: Glance, view: JobView | None, story: NodeStory) -> Response:
    chosen = [_metric(text) for text in request.query_params.getlist("plot")]
    gpus = view.overview.score.gpus if view else glance.gpus
    metrics = view.metrics if view else glance.metrics
    usual = [metric for metric in views.first_plots(metrics) if metric.family != "user"]
    with opened(request) as book:
        groups = [group for group in request.app.state.glances.groups(book) if story.node in group.nodes]
        return page(
            request,
            "node.html.jinja",
            summary=book.grant.job,
            story=story,
            group=groups[0] if groups else None,
            checks=[check for check in book.checks() if check.node == story.node],
            events=book.events(node=story.node, most=views.MOST_EVENTS),
            verified=book.verified(story.node),
            gpus=[gpu for gpu in gpus if gpu.node == story.node],
            plots=[*usual, *(metric for metric in chosen if metric not in usual)],
        )


@rereading
def series(request: Request) -> Response:
    """The data of a plot: metric, split, node or group, from, to."""
    query = request.query_params
    try:
        split = Split(query.get("split", "job"))
        from_s, to_s = (float(query[name]) if name in query else None for name in ("from", "to"))
    except ValueError as error:
        raise UsageError(
            f"not a plot: {error}", remedy="from and to are seconds; split is job, node or device"
        ) from error
    glances: Glances = request.app.state.glances
    with opened(request) as book:
        nodes: tuple[str, ...] = (query["node"],) if query.get("node") else ()
        if query.get("group"):
            groups = glances.groups(book)
            nodes = groups[_place(groups, query["group"])].nodes
        wanted = Plotted(_metric(query.get("metric", "")), split, nodes, from_s, to_s)
        return JSONResponse(plots.plot(book, glances.digest(book), wanted))


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


def stacks(request: Request) -> Response:
    """What every rank on a node did when a hang was suspected."""
    with opened(request) as book:
        node = request.path_params["node"]
        if node not in book.stacks():
            raise UsageError(f"no stacks of {node} were collected", remedy="they are when a hang is suspected")
        text = (book.logbook.stacks / f"{node}.txt").read_text(encoding="utf-8", errors="replace")
        return page(request, "stacks.html.jinja", summary=book.grant.job, node=node, text=text)


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
    """Yield a tar archive of files that may grow meanwhile: each as long as it was when its turn came.

    A segment that was merged meanwhile is left out; what it had is in a later one, or was in one that has been sent.
    """
    for path in paths:
        with suppress(FileNotFoundError), path.open("rb") as file:
            yield from _archived_file(file, f"{title}/{path.relative_to(root)}")
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _archived_file(file: BinaryIO, name: str) -> Iterator[bytes]:
    found = os.fstat(file.fileno())
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = found.st_size, int(found.st_mtime)
    yield entry.tobuf(tarfile.PAX_FORMAT)
    left = entry.size
    while left > 0:
        chunk = file.read(min(_CHUNK, left)) or b"\0" * min(_CHUNK, left)
        left -= len(chunk)
        yield chunk
    yield b"\0" * (-entry.size % tarfile.BLOCKSIZE)
