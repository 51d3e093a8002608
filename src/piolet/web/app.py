"""The application: what is where, and what stands before it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from piolet.core.errors import PioletError, Refused, UsageError
from piolet.core.log import logger
from piolet.core.settings import Settings
from piolet.core.sockets import secured
from piolet.logbook import layout
from piolet.watch import Archive
from piolet.web.editors import Editors
from piolet.web.gate import Gate, Headers
from piolet.web.glance import Glances
from piolet.web.kept import Kept
from piolet.web.limits import Limits
from piolet.web.login import Login, TokenLogin, login_of
from piolet.web.pages import comparing, console, fleet, job, listing, live, nodes, notebooks
from piolet.web.rendering import HERE, page

SESSION_S = 12 * 3600
"""How long a login lasts."""

LISTED_S = 1.0
"""How old a list of jobs may be."""

COMPRESSED = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/x-tar")
"""A logbook is mostly Parquet, which is compressed."""

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def build(settings: Settings, *, login: Login | None = None, root: Path | None = None) -> Starlette:
    """Return the application over the logbooks below `root` (default: the configured one)."""
    limits = Limits(settings.web)
    login = login or login_of(settings.web, limits)
    archive = Archive(root or layout.root(settings), listed_s=LISTED_S)
    application = Starlette(
        routes=[*login.routes, *routes()],
        middleware=[
            Middleware(Headers),
            Middleware(GZipMiddleware, minimum_size=1000, compresslevel=4, exclude_content_types=COMPRESSED),
            Middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, *settings.web.hosts], www_redirect=False),
            Middleware(
                SessionMiddleware,
                secret_key=secrets.token_hex(32),
                session_cookie="piolet",
                max_age=SESSION_S,
                https_only=settings.web.certificate is not None,
            ),
            Middleware(Gate, login=login, limits=limits, jobs=archive.seen_by),
        ],
        exception_handlers={PioletError: failed},
        lifespan=_lifespan,
    )
    application.state.kept = Kept()
    application.state.editors = Editors() if isinstance(login, TokenLogin) else None
    application.state.fleet = fleet.Desk(settings.fleet)
    application.state.glances = Glances(lambda: _racks(application.state.fleet))
    return application


def _racks(desk: fleet.Desk) -> Mapping[str, str]:
    """Return the racks of the fleet's policy; one that is wrong is the fleet's trouble, not that of a job's page."""
    try:
        return desk.policy().racks
    except PioletError as error:
        logger("web").warning("no racks: the fleet's policy cannot be read", reason=str(error))
        return {}


@asynccontextmanager
async def _lifespan(application: Starlette) -> AsyncIterator[None]:
    """End with the server what it started."""
    yield
    if application.state.editors:
        application.state.editors.close()


def routes() -> list[Route | Mount]:
    """Return the pages."""
    one = "/jobs/{cluster}/{job}"
    return [
        Route("/", listing.jobs),
        Route(one, job.job),
        Route(f"{one}/nodes", job.nodes),
        Route(f"{one}/nodes/{{node}}", job.node),
        Route(f"{one}/series", job.series),
        Route(f"{one}/spark.svg", job.spark),
        Route(f"{one}/live", live.live),
        Route(f"{one}/report", job.report),
        Route(f"{one}/logbook.tar", job.logbook),
        Route(f"{one}/files/{{name}}", job.document),
        Route(f"{one}/stacks/{{node}}", job.stacks),
        Route(f"{one}/notebook.py", notebooks.source),
        Route(f"{one}/notebook", notebooks.editor, methods=["POST"]),
        Route("/nodes/{cluster}/{node}", nodes.node),
        Route("/compare", comparing.compare),
        Route("/sql", console.sql),
        Route("/sql/plot", console.plot),
        Route("/sql/answer.csv", console.csv_file),
        Route("/fleet", fleet.fleet),
        Route("/fleet/incidents", fleet.incidents),
        Route("/fleet/rules", fleet.rules),
        Route("/fleet/orders", fleet.order, methods=["POST"]),
        Route("/fleet/nodes/{node}", fleet.node),
        Route("/logout", logout, methods=["POST"]),
        Route("/health", health),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]


def logout(request: Request) -> Response:
    """Forget who this browser belongs to."""
    request.session.clear()
    return RedirectResponse("/login", status_code=303)


def health(request: Request) -> Response:  # noqa: ARG001 - a page's interface
    """Say that the server answers."""
    return PlainTextResponse("ok")


def failed(request: Request, error: Exception) -> Response:
    """Answer a request that could not be carried out: what happened and what to do next, as everywhere in Piolet."""
    asked = isinstance(error, UsageError)
    what, remedy = (error.what, error.remedy) if isinstance(error, PioletError) else (str(error), "")
    if not asked:
        logger("web").error("a page failed", path=request.url.path, error=str(error))
    status = 403 if isinstance(error, Refused) else 404 if asked else 500
    if request.headers.get("sec-fetch-mode", "navigate") != "navigate":
        return PlainTextResponse(f"{what}. {remedy}".strip(), status)
    return page(request, "refused.html.jinja", status=status, reason=what, remedy=remedy)


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until interrupted; port 0 takes a free one.

    Raises:
        Refused: others could reach the address, and there is no certificate.
        PioletError: the address is taken or not this machine's.
    """
    import uvicorn  # noqa: PLC0415 - slow to import

    limits = Limits(settings.web)
    login = login_of(settings.web, limits)
    listening, address = secured(host, port, settings.web.certificate, "web")
    application = build(settings, login=login)
    if isinstance(login, TokenLogin):
        login.announce(address)
    else:
        logger("web").info("serving", address=address, login=settings.web.login)
    config = uvicorn.Config(
        application,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=3,
        ssl_certfile=settings.web.certificate,
        ssl_keyfile=settings.web.key,
    )
    uvicorn.Server(config).run(sockets=[listening])
