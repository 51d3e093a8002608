"""What every request passes before a page sees it: where it comes from, who makes it, how often; and the headers.

A page can trust `request.state.viewer` and read logbooks only through `request.state.jobs`, which is bound to him.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from piolet.watch import Viewer, VisibleJobs
from piolet.web.limits import Limits
from piolet.web.login import Login

SAFE_METHODS = frozenset({"GET", "HEAD"})
PUBLIC = ("/login", "/static/", "/health")
"""Paths that strangers may open: they show nothing of any job."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "private, no-cache",
    "referrer-policy": "no-referrer",  # the link that logs in has a token
    "x-content-type-options": "nosniff",
}


class Headers:
    """Adds the security headers that an answer does not set itself; outermost, so that errors have them too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and complete the answer."""

        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, complete)


class Gate:
    """Lets a request in with its viewer, or answers it itself."""

    def __init__(self, app: ASGIApp, *, login: Login, limits: Limits, jobs: Callable[[Viewer], VisibleJobs]) -> None:
        self._app = app
        self._login = login
        self._limits = limits
        self._jobs = jobs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        answer = self._answer(request)
        await (answer or self._app)(scope, receive, send)

    def _answer(self, request: Request) -> Response | None:
        """Return the answer to a request that must not pass, or None, having noted the viewer."""
        if request.method not in SAFE_METHODS and not same_origin(request):
            return PlainTextResponse("this form was sent from another site; open the page here and send it again", 403)
        viewer = self._login.identify(request)
        try:
            self._limits.request(request, viewer.user if viewer else "")
        except HTTPException as error:
            return PlainTextResponse(str(error.detail), error.status_code, headers=error.headers)
        request.state.viewer = viewer
        if viewer:
            request.state.jobs = self._jobs(viewer)
            return None
        return None if request.url.path.startswith(PUBLIC) else self._stranger(request)

    def _stranger(self, request: Request) -> Response:
        if not self._login.routes:
            return PlainTextResponse("the proxy in front of this server did not say who you are", 401)
        if request.method != "GET" or request.headers.get("sec-fetch-mode", "navigate") != "navigate":
            return PlainTextResponse("log in first", 401)
        request.session["next"] = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse("/login", status_code=303)


def same_origin(request: Request) -> bool:
    """Return whether a request comes from a page of this server, by the browser's own word.

    Browsers send Sec-Fetch-Site or at least Origin with every form; a program that sends neither has no browser's
    cookies to abuse.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "none"}
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host", "")
