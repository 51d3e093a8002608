"""The service's interface: HTTP with JSON. Every answer says what happened; an error also what to do next.

POST /v1/evidence   submit    {"new": 2, "known": 1}, when it is on the disk
POST /v1/alerts     submit    Prometheus Alertmanager's web hook
POST /v1/orders     operate   {"order": "approve", "target": "n7", "reason": "seen twice"}
GET  /v1/status     read      nodes that are not in, breakers, the plan
GET  /v1/nodes/N    read      why it stands where it does
GET  /health                  whether it decides; needs no token
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from piolet.core.errors import PioletError, Refused, UsageError
from piolet.core.log import logger
from piolet.core.run import Runner
from piolet.core.settings import FleetSettings
from piolet.core.sockets import secured
from piolet.fleet import identity, reports, views
from piolet.fleet.identity import Caller, Scope
from piolet.fleet.ledger import Order
from piolet.fleet.orders import instruction
from piolet.fleet.service import Busy, Service

MOST_BYTES = 4 << 20
"""Of a request's body."""

_WAIT_S = 30.0

Endpoint = Callable[[Request], Awaitable[Response]]
Handler = Callable[["Interface", Request, bytes, Caller], Awaitable[Response]]


class TooMuch(PioletError):  # noqa: N818 - the fact that it states
    """The body is too long, or there were too many requests."""

    def __init__(self, what: str, status: int, remedy: str) -> None:
        super().__init__(what, remedy=remedy)
        self.status = status


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    order: Annotated[Order, Field(strict=False)]
    target: Annotated[str, Field(min_length=1, max_length=256)]
    user: Annotated[str, Field(max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    reason: Annotated[str, Field(max_length=1000)] = ""
    hours: Annotated[float, Field(gt=0, le=24 * 366)] | None = None


_ORDER = TypeAdapter(_Order)


class Interface:
    """Knows who asks, how often, and what he may."""

    def __init__(self, service: Service, settings: FleetSettings, runner: Runner) -> None:
        self.service, self.settings, self.runner = service, settings, runner
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._most = RateLimitItemPerMinute(settings.requests_per_minute)

    def endpoint(self, scope: Scope, handler: Handler) -> Endpoint:
        """Return an endpoint that lets only callers with `scope` in."""

        async def answer(request: Request) -> Response:
            try:
                self._count(request.client.host if request.client else "local")
                body = await _body(request)
                header = request.headers.get("authorization", "")
                who = partial(identity.identify, header, body, self.service.known, self.runner, self.settings)
                caller = await run_in_threadpool(who)
                self._count(f"caller {caller.name}")
                if scope not in caller.scopes:
                    return _failed(Refused(f"{caller.name} may not {scope.value}"), 403)
                return await handler(self, request, body, caller)
            except PioletError as error:
                return _failed(error, _status(error, request))

        return answer

    def _count(self, who: str) -> None:
        if not self._limiter.hit(self._most, who):
            raise TooMuch("too many requests", 429, "wait a minute")


def build(service: Service, settings: FleetSettings, runner: Runner) -> Starlette:
    """Return the application; the service lives as long as it does."""
    interface = Interface(service, settings, runner)

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        service.start()
        yield
        await run_in_threadpool(service.stop)

    def health(_: Request) -> Response:
        try:
            with service.reading() as opened:
                return JSONResponse({"decides": True, "entries": opened.fleet.last.seq if opened.fleet.last else 0})
        except Busy as error:
            return _failed(error, 503)

    routes = [
        Route("/v1/evidence", interface.endpoint(Scope.SUBMIT, _evidence), methods=["POST"]),
        Route("/v1/alerts", interface.endpoint(Scope.SUBMIT, _alerts), methods=["POST"]),
        Route("/v1/orders", interface.endpoint(Scope.OPERATE, _orders), methods=["POST"]),
        Route("/v1/status", interface.endpoint(Scope.READ, _state)),
        Route("/v1/nodes/{node}", interface.endpoint(Scope.READ, _node)),
        Route("/health", health),
    ]
    return Starlette(routes=routes, lifespan=life, exception_handlers={Exception: _broken})


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise TooMuch(f"a request has at most {MOST_BYTES} bytes", 413, "send less at once")
        parts.append(part)
    return b"".join(parts)


async def _evidence(self: Interface, _: Request, body: bytes, caller: Caller) -> Response:
    found = await run_in_threadpool(reports.parse, body, caller, self.service.nodes, time.time_ns())
    new = await asyncio.wait_for(asyncio.wrap_future(self.service.submit(found)), _WAIT_S)
    return JSONResponse({"new": new, "known": len(found) - new})


async def _alerts(self: Interface, _: Request, body: bytes, caller: Caller) -> Response:
    found, ignored = reports.parse_alerts(body, self.service.nodes, time.time_ns())
    if caller.nodes is not None:
        raise Refused(f"{caller.name} speaks for some nodes only", remedy="a monitor's token is for all nodes")
    new = await asyncio.wait_for(asyncio.wrap_future(self.service.submit(found)), _WAIT_S) if found else 0
    return JSONResponse({"new": new, "known": len(found) - new, "ignored": ignored})


async def _orders(self: Interface, _: Request, body: bytes, caller: Caller) -> Response:
    try:
        said = _ORDER.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UsageError(f"{'.'.join(map(str, first['loc'])) or 'the order'}: {first['msg']}") from error
    user = f"{said.user} by {caller.name}" if said.user else caller.name
    order = instruction(said.order, said.target, user, said.reason, said.hours)
    await run_in_threadpool(self.service.instruct, order)
    return JSONResponse({"written": True})


async def _state(self: Interface, _: Request, __: bytes, ___: Caller) -> Response:
    def tell() -> dict[str, Any]:
        with self.service.reading() as opened:
            return {
                "nodes": [asdict(row) for row in views.nodes(opened.fleet, opened.policy)],
                "breakers": [asdict(one) for one in views.breakers(opened.fleet)],
                "plan": asdict(self.service.plan()),
            }

    return JSONResponse(await run_in_threadpool(tell))


async def _node(self: Interface, request: Request, _: bytes, __: Caller) -> Response:
    with self.service.reading() as opened:
        return JSONResponse(asdict(views.explain(opened.fleet, request.path_params["node"], opened.policy)))


def _status(error: PioletError, request: Request) -> int:
    match error:
        case TooMuch():
            return error.status
        case Busy():
            return 503
        case Refused():
            return 403 if request.headers.get("authorization") else 401
        case UsageError():
            return 422
    logger("fleet").error("a request failed", path=request.url.path, error=error.what)
    return 503


def _failed(error: PioletError, status: int) -> Response:
    said = {"error": error.what, "where": error.where, "next": error.remedy}
    headers = {"Retry-After": "5"} if status in {429, 503} else {}
    if status == 401:  # noqa: PLR2004 - the number that HTTP has for it
        headers["WWW-Authenticate"] = "Bearer"
    return Response(json.dumps(said), status, headers, media_type="application/json")


def _broken(request: Request, error: Exception) -> Response:
    logger("fleet").error("a request failed", path=request.url.path, error=repr(error))
    return _failed(PioletError("the service could not do this", remedy="its log says why"), 500)


def serve(service: Service, settings: FleetSettings, runner: Runner, host: str, port: int) -> None:
    """Serve until interrupted; port 0 takes a free one.

    Raises:
        Refused: others could reach the address, and there is no certificate.
        PioletError: the address is taken or not this machine's.
    """
    import uvicorn  # noqa: PLC0415 - slow to import

    listening, address = secured(host, port, settings.certificate, "fleet")
    logger("fleet").info("serving", address=address)
    config = uvicorn.Config(
        build(service, settings, runner),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
    )
    uvicorn.Server(config).run(sockets=[listening])
