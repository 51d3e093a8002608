"""One job: its page, the page of one of its nodes, its plots' data, its report and its files."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse

from piolet.core.errors import UsageError
from piolet.logbook import ownership
from piolet.watch import Book, Metric, Split
from piolet.watch.book import DOCUMENTS
from piolet.web import plots, views
from piolet.web.rendering import page

REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; sandbox allow-scripts"
)
"""The report runs apart from the application: it has no cookies here, and its own policy allows its one script."""

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


def _records(book: Book) -> list[Path]:
    """Return the records that are read as a whole; segments are looked at one by one where they are read."""
    logbook = book.logbook
    return [logbook.outcome, logbook.findings, logbook.environment_lock, *logbook.vet.glob("*")]


def job(request: Request) -> Response:
    """The page of a job."""
    with opened(request) as book:
        view = request.app.state.views.of(book)
        chosen = [_metric(text) for text in request.query_params.getlist("plot")]
        return page(
            request,
            "job.html.jinja",
            summary=book.grant.job,
            record=book.job,
            view=view,
            findings=book.findings(),
            gpus=tuple(views.shown_gpus(view)),
            plots=[*view.plots, *(metric for metric in chosen if metric not in view.plots)],
            query=request.query_params,
        )


def node(request: Request) -> Response:
    """The page of a node of a job: its GPUs one by one, what vetting said, what happened there."""
    name = request.path_params["node"]
    with opened(request) as book:
        view = request.app.state.views.of(book)
        stories = [story for story in view.overview.nodes if story.node == name]
        if not stories:
            raise UsageError(f"this job has no node {name}", remedy="see the nodes of the job")
        return page(
            request,
            "node.html.jinja",
            summary=book.grant.job,
            story=stories[0],
            checks=[check for check in book.checks() if check.node == name],
            events=[event for event in book.events() if event.node == name],
            gpus=tuple(views.shown_gpus(view, name)),
            plots=[metric for metric in view.plots if metric.family != "user"],
        )


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


def spark(request: Request) -> Response:
    """A small picture of how busy the job's GPUs were."""
    with opened(request) as book:
        found = book.series(Metric("gpu", "sm_active_ratio"), points=60) if book.interval else None
    values = found.lines[0].mean if found and found.lines else ()
    return Response(plots.spark(values), media_type="image/svg+xml", headers={"cache-control": "private, max-age=60"})


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
