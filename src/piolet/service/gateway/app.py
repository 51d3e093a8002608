"""The gateway as a server.

It logs who asked for which service, how that ended and how long it took: never what was said.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import uvicorn
from prometheus_client import start_http_server
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from piolet.core.errors import PioletError
from piolet.core.log import logger
from piolet.core.sockets import bound, check_certificate
from piolet.service.gateway import replicas, requests, settings, usage
from piolet.service.gateway.asking import Answer, Asking
from piolet.service.gateway.counters import Counters
from piolet.service.gateway.events import Events, Tokens, tokens_of
from piolet.service.gateway.refusals import Refusal
from piolet.service.gateway.replicas import Replicas
from piolet.service.gateway.requests import Caller, Gate
from piolet.service.gateway.settings import Gateway
from piolet.service.gateway.usage import Usage

LOOK_S = 0.5
"""How often the replicas are looked at: a request finds a new one, or loses an old one, that much later."""

KEEP_S = 5.0
"""How often usage is written; a kill loses that much of it."""

GRACE_S = 60
"""Seconds that answers under way have when the gateway is asked to end."""


class Cut(Exception):  # noqa: N818 - what happened to an answer
    """An answer broke off after its first byte: the connection to the client ends without the end of the answer."""


@dataclass(slots=True)
class Passage:
    """A request on its way: who asked what, and since when."""

    path: str
    began_s: float = field(default_factory=time.monotonic)
    caller: Caller | None = None
    service: str = ""


@dataclass(slots=True)
class Front:
    """The gateway of the file `path`, and all that it knows."""

    path: Path
    gateway: Gateway
    usage: Usage
    gate: Gate
    asking: Asking
    replicas: Replicas
    counters: Counters
    read_ns: int = 0

    async def complete(self, request: Request) -> Response:
        """Pass a request on to a replica, and its answer back."""
        passage = Passage(request.url.path)
        try:
            answer, shows_usage = await self._answer(request, passage)
        except Refusal as refusal:
            self._end(passage, str(refusal.status), Tokens())
            return refusal.response()
        status = answer.response.status_code
        self.counters.first_byte.labels(passage.service).observe(time.monotonic() - passage.began_s)
        if answer.is_stream:
            events = Events(hide_usage=not shows_usage)
            return StreamingResponse(self._stream(answer, events, passage), status, media_type=answer.kind)
        await answer.close()
        self._end(passage, str(status), _tokens(answer))
        return Response(answer.first, status, media_type=answer.kind or None)

    async def _answer(self, request: Request, passage: Passage) -> tuple[Answer, bool]:
        passage.caller = caller = self.gate.caller(request, self.gateway)
        self.gate.admit(caller)
        services = settings.opened(self.gateway, caller.key)
        asked, shows_usage = requests.asked(passage.path, await requests.body(request), services)
        passage.service = asked.service
        return await self.asking.answer(asked), shows_usage

    async def _stream(self, answer: Answer, events: Events, passage: Passage) -> AsyncIterator[bytes]:
        """Pass events on as they come; one that breaks off says so, and the connection ends without its end."""
        ended = "gone"  # the client, unless something else is found
        try:
            yield events.feed(answer.first)
            async for chunk in answer.rest:
                yield events.feed(chunk)
            ended = "200" if events.done else "cut"
        except httpx2.TransportError:
            ended = "cut"
        finally:
            self._end(passage, ended, events.used())
            await answer.close()
        if ended == "cut":
            error = Refusal(502, "cut", "the answer broke off: ask again").body()
            yield f"data: {json.dumps({'error': error})}\n\n".encode()
            raise Cut

    def _end(self, passage: Passage, ended: str, tokens: Tokens) -> None:
        project, name = (passage.caller.key.project, passage.caller.name) if passage.caller else ("", "")
        took_s = time.monotonic() - passage.began_s
        self.counters.requests.labels(project, passage.service, ended).inc()
        if passage.service and passage.caller:
            self.counters.whole.labels(passage.service).observe(took_s)
            self.counters.tokens.labels(project, passage.service, "prompt").inc(tokens.prompt)
            self.counters.tokens.labels(project, passage.service, "completion").inc(tokens.completion)
            self.usage.count(passage.caller.line(passage.service), tokens)
        logger("gateway").info(
            "request", key=name, path=passage.path, service=passage.service, ended=ended, seconds=round(took_s, 4)
        )

    async def models(self, request: Request) -> Response:
        """List the services that a key opens and that have a replica."""
        try:
            caller = self.gate.caller(request, self.gateway)
        except Refusal as refusal:
            return refusal.response()
        ready = [name for name in settings.opened(self.gateway, caller.key) if self.replicas.ready(name)]
        data = [{"id": name, "object": "model", "owned_by": name.partition("/")[0]} for name in ready]
        return JSONResponse({"object": "list", "data": data})

    async def look(self) -> None:
        """Look at the replicas, and at the gateway's own file if it has changed."""
        changed_ns = self.path.stat().st_mtime_ns
        if changed_ns != self.read_ns:
            self.read_ns = changed_ns
            self.gateway = await asyncio.to_thread(settings.read, self.path)
        self.replicas.update(await asyncio.to_thread(replicas.look, self.gateway, self.path.parent))
        for name in self.gateway.services:
            self.counters.replicas.labels(name).set(self.replicas.ready(name))

    async def keep(self) -> None:
        """Write usage down."""
        taken = self.usage.taken()
        try:
            await asyncio.to_thread(self.usage.write, taken)
        except PioletError:
            self.usage.put_back(taken)
            raise

    @contextlib.asynccontextmanager
    async def living(self, _: Starlette) -> AsyncIterator[None]:
        """Look and keep again and again, as long as the server lives."""
        await self.look()
        tasks = [asyncio.create_task(_again(self.look, LOOK_S)), asyncio.create_task(_again(self.keep, KEEP_S))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await self.asking.client.aclose()
            await self.keep()


def front(path: Path) -> Front:
    """Return the gateway that the file at `path` describes.

    Raises:
        ConfigError, UsageError: the file is wrong.
        StorageError: the file or the database of usage cannot be read.
    """
    path = path.resolve()
    read_ns = path.stat().st_mtime_ns if path.is_file() else 0
    gateway = settings.read(path)
    used, counters, known = usage.opened(path.parent / gateway.usage), Counters(), Replicas()

    def retried(service: str) -> None:
        counters.retries.labels(service).inc()

    asking = Asking(known, gateway.patience_s, gateway.timeout_s, retried)
    return Front(path, gateway, used, requests.gate(used), asking, known, counters, read_ns)


def application(gateway: Front) -> Starlette:
    """Return the application."""
    return Starlette(
        routes=[
            *(Route(path, gateway.complete, methods=["POST"]) for path in requests.PATHS),
            Route("/v1/models", gateway.models),
            Route("/health", _health),
        ],
        lifespan=gateway.living,
        exception_handlers={Exception: _failed},
    )


def serve(path: Path) -> None:
    """Serve until interrupted.

    Raises:
        ConfigError, UsageError: the file is wrong, or its certificate cannot be used.
        PioletError: the address is taken or not this machine's.
    """
    gateway = front(path)
    host, port = settings.split(gateway.gateway.listen)
    certificate, key = _beside(path, gateway.gateway.certificate), _beside(path, gateway.gateway.key)
    if certificate and key:
        check_certificate(certificate, key)
    listening = uvicorn.Config(
        application(gateway),
        http="httptools",
        log_level="critical",  # what fails is told here, and cut answers end in an exception
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    with bound(host, port) as socket:
        if gateway.gateway.metrics:
            metrics_host, metrics_port = settings.split(gateway.gateway.metrics)
            start_http_server(metrics_port, metrics_host, gateway.counters.registry)
        address = f"{'https' if certificate else 'http'}://{host}:{socket.getsockname()[1]}/v1"
        logger("gateway").info("serving", address=address, services=len(gateway.gateway.services))
        uvicorn.Server(listening).run(sockets=[socket])


def _beside(path: Path, name: str) -> Path | None:
    return path.resolve().parent / name if name else None


def _tokens(answer: Answer) -> Tokens:
    try:
        return tokens_of(json.loads(answer.first)) or Tokens()
    except ValueError:
        return Tokens()


async def _health(_: Request) -> Response:
    return PlainTextResponse("ok")


async def _failed(request: Request, error: Exception) -> Response:
    logger("gateway").error("failed", path=request.url.path, error=type(error).__name__, exc_info=error)
    return Refusal(500, "internal", "the gateway failed; its log says why").response()


async def _again(act: Callable[[], Awaitable[None]], pause_s: float) -> None:
    """Do something again and again; what fails for a while is told and done again."""
    while True:
        await asyncio.sleep(pause_s)
        try:
            await act()
        except (PioletError, OSError) as error:
            logger("gateway").warning("failed", what=getattr(act, "__name__", ""), error=str(error))
