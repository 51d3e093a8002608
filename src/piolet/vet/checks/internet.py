"""A host outside can be reached over TCP, where programs need one (data, model hubs, trackers)."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, MinLen

from piolet.core.nouns import Status
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.isolation import Task, run_isolated


@dataclass(frozen=True, slots=True)
class Parameters:
    """`host`, `port`: where a TCP connection must succeed; `answer_s`: in so many seconds, name resolution included."""

    host: Annotated[str, MinLen(1)]
    port: Annotated[int, Ge(1), Le(65535)] = 53
    answer_s: Annotated[float, Gt(0)] = 3.0


def observe(parameters: Parameters, context: Context) -> str:  # noqa: ARG001 - the interface of checks
    """Connect, and return why that failed, or nothing. Nothing is sent."""
    connect = _Connect(parameters.host, parameters.port)
    [outcome] = run_isolated([Task(parameters.host, connect, parameters.answer_s)])
    return outcome.error or outcome.text


def judge(observation: str, parameters: Parameters) -> Judgement:
    """Fail if there was trouble."""
    where = f"{parameters.host}:{parameters.port}"
    if observation:
        remedy = "look at routes, firewall and proxy of the node; many sites let compute nodes out only by a proxy"
        return Judgement(Status.FAIL, f"{where}: {observation}", remedy=remedy)
    return Judgement(Status.PASS, f"{where} can be reached")


@dataclass(frozen=True, slots=True)
class _Connect:
    host: str
    port: int

    def __call__(self) -> str:
        try:
            with socket.create_connection((self.host, self.port)):
                return ""
        except OSError as error:
            return error.strerror or str(error)


CHECK = Check(
    name="internet",
    version=1,
    summary="a host outside can be reached",
    source="3 s: TCP sends its first packet again after 1 s (RFC 6298), so two may be lost",
    parameters=Parameters,
    observe=observe,
    judge=judge,
)
