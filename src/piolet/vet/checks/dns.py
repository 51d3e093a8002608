"""Host names are resolved, and quickly. One that hangs is found by a process that may hang in its place."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, MinLen

from piolet.core.nouns import Status
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.isolation import Task, run_isolated


@dataclass(frozen=True, slots=True)
class Parameters:
    """`names`: what must be resolved, by whatever the node uses (files, DNS, LDAP); `answer_s`: seconds for each."""

    names: Annotated[tuple[str, ...], MinLen(1)]
    answer_s: Annotated[float, Gt(0)] = 2.0


@dataclass(frozen=True, slots=True)
class Name:
    """One name, and its trouble: empty if it was resolved in time."""

    name: str
    trouble: str = ""


def observe(parameters: Parameters, context: Context) -> tuple[Name, ...]:  # noqa: ARG001 - the interface of checks
    """Resolve all names at once, each in a process of its own."""
    tasks = [Task(name, _Resolve(name), parameters.answer_s) for name in parameters.names]
    return tuple(Name(outcome.name, outcome.error or outcome.text) for outcome in run_isolated(tasks))


def judge(observation: tuple[Name, ...], parameters: Parameters) -> Judgement:
    """Fail on any name that was not resolved; one that nobody asked for does not stand for one that is missing."""
    resolved = {each.name for each in observation if not each.trouble}
    troubles = {each.name: each.trouble for each in observation}
    missing = [f"{name}: {troubles.get(name, 'not asked')}" for name in parameters.names if name not in resolved]
    count = len(parameters.names)
    if missing:
        remedy = "look at /etc/resolv.conf, /etc/hosts and the name servers of the node; tell the operators"
        return Judgement(Status.FAIL, "; ".join(missing), count - len(missing), count, "names", remedy)
    return Judgement(Status.PASS, "every name is resolved", count, count, "names")


@dataclass(frozen=True, slots=True)
class _Resolve:
    name: str

    def __call__(self) -> str:
        try:
            socket.getaddrinfo(self.name, None)
        except OSError as error:
            return error.strerror or str(error)
        return ""


CHECK = Check(
    name="dns",
    version=1,
    summary="host names are resolved in time",
    source="answers take milliseconds; a resolver tries again after 5 s (resolv.conf), so 2 s are one try",
    parameters=Parameters,
    observe=observe,
    judge=judge,
)
