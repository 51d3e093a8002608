"""Who a visitor is. Each way to log in answers one question, `identify`, and brings the pages that it needs.

Which jobs a visitor may see is not decided here: `piolet.watch` binds every query to the viewer.
"""

from __future__ import annotations

import hmac
import os
import pwd
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from piolet.core.errors import ConfigError, UsageError, storage_errors
from piolet.core.settings import WebSettings
from piolet.watch import Viewer
from piolet.web.limits import Limits
from piolet.web.rendering import page
from piolet.web.sessions import remember, remembered, system_groups, viewer

PROXY_SECRET = "X-Piolet-Proxy"  # noqa: S105 - the name of a header
PROXY_USER = "X-Remote-User"
PROXY_GROUPS = "X-Remote-Groups"


class Login(Protocol):
    """A way to log in."""

    @property
    def routes(self) -> Sequence[Route]:
        """The pages that it needs; none where strangers cannot log in here."""
        ...

    def identify(self, request: Request) -> Viewer | None:
        """Return who made the request, or None for a stranger."""
        ...


def login_of(settings: WebSettings, limits: Limits) -> Login:
    """Return the way to log in that the settings name.

    Raises:
        ConfigError: a setting that this way needs is missing.
        StorageError: the secret cannot be read.
    """
    match settings.login:
        case "pam":
            return PamLogin(settings, limits)
        case "proxy":
            return ProxyLogin(settings, _secret(settings))
        case "oidc":
            from piolet.web.openid import OpenIdLogin  # noqa: PLC0415 - slow to import, used by few

            return OpenIdLogin(settings, _secret(settings))
        case _:
            return TokenLogin(limits)


class TokenLogin:
    """A link with a token that works once, for the person who started the server and reads its terminal."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._owner = pwd.getpwuid(os.geteuid()).pw_name
        self._base = ""
        self._token = secrets.token_urlsafe(32)
        self.routes = (Route("/login", self._login, methods=["GET", "POST"]),)

    def announce(self, base: str) -> None:
        """Print the link; `base` is the server's address."""
        self._base = base
        sys.stderr.write(f"piolet: open {self.link}\n")
        sys.stderr.flush()

    @property
    def link(self) -> str:
        """The address that logs in, once."""
        return f"{self._base}/login?{urlencode({'token': self._token})}"

    def identify(self, request: Request) -> Viewer | None:
        """See Login. The server reads with the owner's rights, so the file system is the judge of what is shown."""
        return self._viewer() if request.session.get("user") == self._owner else None

    def _viewer(self) -> Viewer:
        return Viewer(self._owner, operator=True)

    async def _login(self, request: Request) -> Response:
        given = request.query_params.get("token") or str((await request.form()).get("token") or "")
        if not given:
            return page(request, "token.html.jinja", wrong=False)
        self._limits.attempt(request)
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return page(request, "token.html.jinja", status=403, wrong=True)
        self._token = secrets.token_urlsafe(32)
        response = remember(request, self._viewer())
        self.announce(self._base)
        return response


class PamLogin:
    """A user's name and password, checked by PAM as a login on this machine is."""

    def __init__(self, settings: WebSettings, limits: Limits) -> None:
        self._settings = settings
        self._limits = limits
        self.routes = (Route("/login", self._login, methods=["GET", "POST"]),)

    def identify(self, request: Request) -> Viewer | None:
        """See Login."""
        return remembered(request, self._settings)

    async def _login(self, request: Request) -> Response:
        if request.method == "GET":
            return page(request, "password.html.jinja", wrong=False)
        form = await request.form()
        user, password = str(form.get("user") or ""), str(form.get("password") or "")
        self._limits.attempt(request, user)
        if not await run_in_threadpool(self._accepted, user, password):
            return page(request, "password.html.jinja", status=403, wrong=True)
        return remember(request, viewer(self._settings, user, system_groups(user)))

    def _accepted(self, user: str, password: str) -> bool:
        import pamela  # noqa: PLC0415 - needs libpam, which only this way to log in asks for

        if not user or not password or "\0" in user + password:
            return False
        try:
            pamela.authenticate(user, password, service=self._settings.pam_service)
        except pamela.PAMError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class ProxyLogin:
    """A proxy in front has logged the user in, and proves with a shared secret that it is the proxy.

    Every local user can connect to a port on loopback, so the address of the peer proves nothing.
    """

    settings: WebSettings
    secret: str
    routes: Sequence[Route] = ()

    def identify(self, request: Request) -> Viewer | None:
        """See Login."""
        given = request.headers.get(PROXY_SECRET, "")
        user = request.headers.get(PROXY_USER, "")
        if not user or not hmac.compare_digest(given.encode(), self.secret.encode()):
            return None
        groups = request.headers.get(PROXY_GROUPS, "")
        return viewer(self.settings, user, (group.strip() for group in groups.split(",") if group.strip()))


def _secret(settings: WebSettings) -> str:
    if settings.secret is None:
        raise ConfigError(
            f"logging in by {settings.login} needs a shared secret",
            path="web.secret",
            remedy="write it to a file that only the server can read, and name that file",
        )
    with storage_errors(settings.secret, "read the secret"):
        found = settings.secret.read_text(encoding="utf-8").strip()
        open_to_others = settings.secret.stat().st_mode & 0o077
    if not found or open_to_others:
        raise UsageError(
            "the file of the secret is empty" if not found else "others may read the file of the secret",
            where=str(settings.secret),
            remedy="write one line, and chmod 600 the file",
        )
    return found
