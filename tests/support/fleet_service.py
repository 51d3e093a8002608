"""A service of the fleet in this process: its application, and a Slurm whose answers are a few lines of text."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.testclient import TestClient

from piolet.core.run import Result
from piolet.core.settings import FleetSettings
from piolet.core.sockets import secured
from piolet.fleet import api, identity, policy, store
from piolet.fleet.identity import Scope
from piolet.fleet.service import Service
from piolet.tools.slurm.rows import SEPARATOR

NODES = [f"n{number}" for number in range(1, 41)]


class FewNodes:
    """Answers sinfo, squeue and scontrol for 40 idle nodes whose drains it remembers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.reasons: dict[str, str] = {}

    def run(self, argv, *, timeout, ok=(0,), stdin=None) -> Result:  # noqa: ARG002 - a Runner
        self.asked.append(tuple(argv))
        return Result(tuple(argv), 0, self._answer(list(argv)), "")

    def _answer(self, argv: list[str]) -> str:
        match argv:
            case ["sinfo", *_]:
                return "\n".join(map(self._row, NODES)) + "\n"
            case ["scontrol", "show", "node", name]:
                reason = f"   Reason={self.reasons[name]} [root@100]\n" if name in self.reasons else ""
                state = "IDLE+DRAIN" if reason else "IDLE"
                return f"NodeName={name} Arch=x86_64\n   State={state}\n   Partitions=main\n{reason}\n"
            case ["scontrol", "update", node, state, *reason]:
                self._update(node.removeprefix("NodeName="), state, reason)
        return ""

    def _update(self, node: str, state: str, reason: list[str]) -> None:
        if state == "State=DRAIN":
            self.reasons[node] = reason[0].removeprefix("Reason=")
        elif state == "State=RESUME":
            self.reasons.pop(node, None)

    def _row(self, name: str) -> str:
        reason = self.reasons.get(name, "none")
        state = "drained" if name in self.reasons else "idle"
        return SEPARATOR.join((name, "main", state, "8", "16000", "gpu:h100:4", "root", "100", reason))


@dataclass(frozen=True, slots=True)
class Running:
    """A service that runs, with tokens of three people and of two nodes."""

    client: TestClient
    service: Service
    slurm: FewNodes
    tokens: dict[str, str]

    def ask(self, who: str, method: str, path: str, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.tokens[who]}"} if who else {}
        return self.client.request(method, path, headers=headers, **more)

    def report(self, who: str, *items: dict[str, Any]) -> Any:
        return self.ask(who, "POST", "/v1/evidence", json={"evidence": list(items)})


def xid(ident: str, node: str = "n1", **more: Any) -> dict[str, Any]:
    return {
        "id": ident,
        "time_ns": time.time_ns(),
        "kind": "xid",
        "code": "31",
        "node": node,
        "gpu": f"GPU-{node}",
    } | more


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that must hold in the end; the test's time-out bounds it."""
    while not holds():
        time.sleep(0.01)


def _tokens(where: str | Path) -> dict[str, str]:
    people = (
        ("reporter", [Scope.SUBMIT], ""),
        ("n1", [Scope.SUBMIT], "n1"),
        ("reader", [Scope.READ], ""),
        ("operator", [Scope.OPERATE], ""),
    )
    with store.opened(where) as opened:
        return {name: identity.new_token(opened, name, scopes, nodes) for name, scopes, nodes in people}


@contextmanager
def listening(where: str | Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A service on a socket of its own, in a thread: its address and its tokens."""
    slurm, tokens = FewNodes(), _tokens(where)
    settings = FleetSettings(database=str(where), requests_per_minute=10**6)
    service = Service(where, policy.load, slurm, "lab")
    listens, address = secured("127.0.0.1", 0, None, "fleet")
    server = uvicorn.Server(uvicorn.Config(api.build(service, settings, slurm), log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listens]})
    thread.start()
    try:
        until(lambda: bool(service._names))
        yield address, tokens
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def running(where: str | Path, settings: FleetSettings | None = None) -> Iterator[Running]:
    slurm, tokens = FewNodes(), _tokens(where)
    service = Service(where, policy.load, slurm, "lab")
    application = api.build(service, settings or FleetSettings(database=str(where)), slurm)
    with TestClient(application, base_url="http://fleet") as client:
        until(lambda: client.get("/health").status_code == 200)
        until(lambda: bool(service._names))
        yield Running(client, service, slurm, tokens)
