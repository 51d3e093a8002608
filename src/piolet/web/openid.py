"""Logging in at an OpenID provider, with Authlib: the authorization code flow with PKCE."""

from __future__ import annotations

from typing import Any

from authlib.integrations.starlette_client import OAuth, OAuthError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from piolet.core.errors import ConfigError
from piolet.core.settings import WebSettings
from piolet.watch import Viewer
from piolet.web.rendering import page
from piolet.web.sessions import remember, remembered, viewer


class OpenIdLogin:
    """See Login. The provider's claims give the user's name on the cluster and the groups."""

    def __init__(self, settings: WebSettings, secret: str) -> None:
        if not settings.oidc_issuer or not settings.oidc_client:
            raise ConfigError(
                "logging in by oidc needs the provider and a client id",
                path="web.oidc_issuer, web.oidc_client",
                remedy="register the application at the provider; its redirect address is <address>/login/callback",
            )
        self._settings = settings
        self._provider = OAuth().register(
            "provider",
            client_id=settings.oidc_client,
            client_secret=secret,
            server_metadata_url=f"{settings.oidc_issuer.rstrip('/')}/.well-known/openid-configuration",
            client_kwargs={"scope": "openid profile", "code_challenge_method": "S256"},
        )
        self.routes = (Route("/login", self._login), Route("/login/callback", self._callback, name="callback"))

    def identify(self, request: Request) -> Viewer | None:
        """See Login."""
        return remembered(request, self._settings)

    async def _login(self, request: Request) -> Response:
        answer: Response = await self._provider.authorize_redirect(request, str(request.url_for("callback")))
        return answer

    async def _callback(self, request: Request) -> Response:
        try:
            token = await self._provider.authorize_access_token(request)
        except OAuthError as error:
            return page(request, "refused.html.jinja", status=403, reason=f"the provider said: {error.error}")
        claims: dict[str, Any] = token.get("userinfo") or {}
        user, groups = claims.get(self._settings.oidc_user_claim), claims.get(self._settings.oidc_groups_claim) or []
        if not isinstance(user, str) or not user or not isinstance(groups, list):
            missing = f'the provider gave no user name: claim "{self._settings.oidc_user_claim}"'
            return page(request, "refused.html.jinja", status=403, reason=missing)
        return remember(request, viewer(self._settings, user, [str(group) for group in groups]))
