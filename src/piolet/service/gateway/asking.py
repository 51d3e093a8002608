"""Sending a request to a replica, and to another one as long as the client has not seen a byte.

Every request that passes the gateway only computes an answer, so asking again is safe; after the first byte it is not,
since the answer would be another. An answer that does not come to its end is never passed on as if it had.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import httpx2

from piolet.service.gateway.refusals import Refusal
from piolet.service.gateway.replicas import Replica, Replicas

TRIES = 4
_PAUSE_S = 0.1
_BUSY = frozenset({502, 503, 504})
_CONNECT_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What to send: a path of the API and its body, for a service; `stream` if the answer comes as events."""

    service: str
    path: str
    body: bytes
    stream: bool


@dataclass(slots=True)
class Answer:
    """An answer that has begun: status, kind of content, the first bytes, and the rest of them."""

    replica: Replica
    response: httpx2.Response
    first: bytes
    rest: AsyncIterator[bytes]

    @property
    def is_stream(self) -> bool:
        """Whether it is a stream of events."""
        return self.kind.startswith("text/event-stream")

    @property
    def kind(self) -> str:
        """The content type."""
        return str(self.response.headers.get("content-type", ""))

    async def close(self) -> None:
        """Give the connection back, or end it if the answer is not whole."""
        self.replica.outstanding -= 1
        await self.response.aclose()


class _Elsewhere(Exception):  # noqa: N818 - not an error yet
    """The replica did not answer; another may."""


@dataclass(slots=True)
class Asking:
    """Asks replicas. `patience_s` is how long a request waits for a replica, `timeout_s` for the next byte."""

    replicas: Replicas
    patience_s: float
    timeout_s: float
    on_retry: Callable[[str], None]
    client: httpx2.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        timeout = httpx2.Timeout(self.timeout_s, connect=_CONNECT_TIMEOUT_S, pool=None)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=200, keepalive_expiry=4)
        self.client = httpx2.AsyncClient(timeout=timeout, limits=limits, trust_env=False)

    async def answer(self, asked: Asked) -> Answer:
        """Return the answer, once its first bytes are there: a whole one if it is no stream.

        Raises:
            Refusal: no replica answers.
        """
        tried: list[Replica] = []
        for attempt in range(TRIES):
            replica = await self._replica(asked.service, tried)
            if attempt:
                self.on_retry(asked.service)
            replica.outstanding += 1
            try:
                return await self._ask(asked, replica)
            except _Elsewhere:
                replica.outstanding -= 1
                self.replicas.suspect(replica)
                tried.append(replica)
                await asyncio.sleep(_PAUSE_S * attempt)
            except BaseException:
                replica.outstanding -= 1
                raise
        raise Refusal(503, "unavailable", "the service does not answer", retry_after_s=10)

    async def _replica(self, service: str, tried: list[Replica]) -> Replica:
        """Return a replica; with none at all, wait for one, as in the moment between two jobs."""
        deadline_s = self.replicas.clock() + self.patience_s
        while (found := self.replicas.choose(service, tried)) is None:
            if self.replicas.clock() >= deadline_s:
                raise Refusal(503, "unavailable", "no replica of the service is ready", retry_after_s=30)
            await asyncio.sleep(_PAUSE_S)
        return found

    async def _ask(self, asked: Asked, replica: Replica) -> Answer:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if replica.key:
            headers["Authorization"] = f"Bearer {replica.key}"
        request = self.client.build_request("POST", replica.url + asked.path, content=asked.body, headers=headers)
        try:
            response = await self.client.send(request, stream=True)
        except (httpx2.ReadTimeout, httpx2.WriteTimeout) as error:
            raise _too_slow() from error
        except httpx2.TransportError as error:
            raise _Elsewhere from error
        try:
            _check_not_busy(response)
            return await _begun(replica, response)
        except BaseException:
            await response.aclose()
            raise


async def _begun(replica: Replica, response: httpx2.Response) -> Answer:
    answer = Answer(replica, response, b"", response.aiter_raw())
    try:
        if answer.is_stream:
            answer.first = await anext(answer.rest)
        else:
            answer.first = b"".join([chunk async for chunk in answer.rest])
            _check_whole(answer)
    except StopAsyncIteration as error:
        raise _Elsewhere from error
    except httpx2.ReadTimeout as error:
        raise _too_slow() from error
    except httpx2.TransportError as error:
        raise _Elsewhere from error
    return answer


def _check_not_busy(response: httpx2.Response) -> None:
    if response.status_code in _BUSY:
        raise _Elsewhere


def _check_whole(answer: Answer) -> None:
    """An answer whose end the connection alone tells may be cut: what is no JSON then is not passed on."""
    if answer.kind.startswith("application/json"):
        try:
            json.loads(answer.first)
        except ValueError as error:
            raise _Elsewhere from error


def _too_slow() -> Refusal:
    return Refusal(504, "timeout", "the service took too long to answer")
