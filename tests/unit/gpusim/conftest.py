"""A node with two simulated GPUs, and the real nvidia-ml-py in a process of its own to ask about them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from piolet.core.native import DIRECTORY
from piolet.core.run import SystemRunner
from piolet.lab import gpus

BOOT_NS = 1_800_000_000_000_000_000
ROOT = Path(__file__).resolve().parents[3]
PROBE = Path(__file__).with_name("probe.py")


@dataclass(frozen=True)
class Node:
    """The GPUs of one node; times are seconds since its boot."""

    directory: Path
    gpus: tuple[gpus.Gpu, ...]

    def ask(self, *questions: tuple[Any, ...]) -> list[Any]:
        """Answer (seconds, call, arguments...) questions in one process; "gpu:N" is a handle."""
        asked = [{"at": at, "call": call, "args": args} for at, call, *args in questions]
        environment = {"PIOLET_GPUSIM": str(self.directory), "LD_LIBRARY_PATH": str(DIRECTORY)}
        result = SystemRunner(environment).run([sys.executable, str(PROBE)], timeout=20, stdin=json.dumps(asked))
        answers: list[Any] = json.loads(result.stdout)
        return answers

    def one(self, *question: Any) -> Any:
        """Answer one question."""
        return self.ask(question)[0]

    def hint(self, at: float, phase: str, gpu: int = 0, **options: Any) -> None:
        gpus.hint(self.directory, gpu, phase, time_ns=self.ns(at), **options)

    def fault(self, at: float, gpu: int = 0, **flags: Any) -> None:
        for fault in gpus.parse_faults(flags):
            gpus.inject(self.directory, gpu, fault, time_ns=self.ns(at))

    def append(self, text: str, gpu: int = 0) -> None:
        with (self.directory / f"gpu{gpu}.log").open("a") as log:
            log.write(text)

    def kernel_log(self) -> Sequence[str]:
        path = self.directory.parent / "kmsg"
        return path.read_text().splitlines() if path.exists() else ()

    @staticmethod
    def ns(at: float) -> int:
        return BOOT_NS + round(at * 1e9)


@pytest.fixture(scope="session")
def _library() -> None:
    SystemRunner().run(["make", "-s", "-C", str(ROOT / "gpusim")], timeout=120)


@pytest.fixture
def make_node(tmp_path: Path, _library: None) -> Any:
    def make(model: str = "h100", count: int = 2) -> Node:
        directory = tmp_path / "node1" / "gpu"
        return Node(directory, gpus.write_inventory(directory, node="node1", count=count, model=model, boot_ns=BOOT_NS))

    return make


@pytest.fixture
def node(make_node: Any) -> Node:
    made: Node = make_node()
    return made
