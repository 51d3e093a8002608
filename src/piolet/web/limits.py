"""How often a visitor may ask: one moving window a minute each for requests and for attempts to log in."""

from __future__ import annotations

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from piolet.core.settings import WebSettings


class Limits:
    """Counts in memory; a restart forgives."""

    def __init__(self, settings: WebSettings) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._requests = RateLimitItemPerMinute(settings.requests_per_minute, namespace="requests")
        self._logins = RateLimitItemPerMinute(settings.logins_per_minute, namespace="logins")

    def request(self, connection: HTTPConnection, user: str) -> None:
        """Count a request of `user`, or of the address of a stranger; HTTPException 429 when it is too many."""
        self._count(self._requests, user or _address(connection), "requests")

    def attempt(self, connection: HTTPConnection, user: str = "") -> None:
        """Count an attempt to log in, for the address and for the name that was tried; HTTPException 429."""
        self._count(self._logins, _address(connection), "attempts to log in")
        if user:
            self._count(self._logins, f"user:{user}", "attempts to log in")

    def _count(self, item: RateLimitItemPerMinute, key: str, what: str) -> None:
        if not self._limiter.hit(item, key):
            raise HTTPException(429, f"too many {what}: wait a minute", headers={"Retry-After": "60"})


def _address(connection: HTTPConnection) -> str:
    return connection.client.host if connection.client else "local"
