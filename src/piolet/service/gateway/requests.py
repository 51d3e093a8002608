"""From a client's request to what a replica is asked: who asks, whether it may, for which service, what is sent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.requests import Request

from piolet.service.gateway import settings
from piolet.service.gateway.asking import Asked
from piolet.service.gateway.refusals import Refusal
from piolet.service.gateway.settings import Behind, Gateway, Key
from piolet.service.gateway.usage import Line, Usage

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank", "/v1/score")
"""What is passed on: requests that compute an answer and change nothing."""

MOST_BODY_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever holds a key: its name and what it may do."""

    name: str
    key: Key

    def line(self, service: str) -> Line:
        """Return where the use of a service is counted."""
        return month(), self.name, service


@dataclass(slots=True)
class Gate:
    """Lets callers pass."""

    usage: Usage
    limiter: MovingWindowRateLimiter

    def caller(self, request: Request, gateway: Gateway) -> Caller:
        """Return who asks.

        Raises:
            Refusal: the key is missing, unknown or expired.
        """
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        name = settings.owner(gateway, key.strip(), datetime.now(UTC).date()) if scheme.lower() == "bearer" else None
        if name is None:
            raise Refusal(401, "invalid_api_key", "give a key of the gateway: Authorization: Bearer KEY")
        return Caller(name, gateway.keys[name])

    def admit(self, caller: Caller) -> None:
        """Count a request.

        Raises:
            Refusal: too many in this minute, or the tokens of this month are used up.
        """
        key = caller.key
        if key.requests_per_minute and not self.limiter.hit(
            RateLimitItemPerMinute(key.requests_per_minute), caller.name
        ):
            what = f"more than {key.requests_per_minute} requests in a minute"
            raise Refusal(429, "rate_limit_exceeded", what, retry_after_s=5)
        if key.tokens_per_month and self.usage.spent[month(), caller.name] >= key.tokens_per_month:
            raise Refusal(429, "insufficient_quota", f"the {key.tokens_per_month} tokens of this month are used up")


def gate(usage: Usage) -> Gate:
    """Return a gate that counts requests in memory, and tokens in `usage`."""
    return Gate(usage, MovingWindowRateLimiter(MemoryStorage()))


def month() -> str:
    """Return the month that is counted now, such as 2027-01."""
    return f"{datetime.now(UTC):%Y-%m}"


async def body(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request.

    Raises:
        Refusal: it is none, or too large.
    """
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BODY_BYTES:
            raise Refusal(413, "too_large", f"a request has at most {MOST_BODY_BYTES} bytes")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refusal(400, "invalid_request_error", "the body is not a JSON object")
    return found


def asked(path: str, given: dict[str, Any], services: dict[str, Behind]) -> tuple[Asked, bool]:
    """Return what to send, and whether the client asked for the usage of a stream; the gateway always does.

    Raises:
        Refusal: the model is none of `services`.
    """
    name = given.get("model")
    if not isinstance(name, str) or name not in services:
        known = ", ".join(sorted(services)) or "none"
        raise Refusal(404, "model_not_found", f"there is no such model for this key; there are: {known}")
    stream = given.get("stream") is True
    options = given.get("stream_options")
    options = options if isinstance(options, dict) else {}
    sent = given | {"model": services[name].model or name.partition("/")[2]}
    if stream:
        sent["stream_options"] = options | {"include_usage": True}
    return Asked(name, path, json.dumps(sent).encode(), stream), options.get("include_usage") is True
