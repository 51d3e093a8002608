"""Real agents on a node with simulated GPUs, and programs recorded beside them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from piolet.core.native import DIRECTORY
from piolet.core.run import SystemRunner
from piolet.lab import gpus
from piolet.logbook.layout import Logbook, create
from piolet.logbook.reader import read
from piolet.record.spec import AgentSpec

ROOT = Path(__file__).resolve().parents[3]


def wait_until(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """Return the first true value of `condition`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return value


@dataclass
class Node:
    """A node with two simulated GPUs and a simulated kernel log; it starts and ends its own processes."""

    path: Path
    gpus: tuple[gpus.Gpu, ...]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def gpu_state(self) -> Path:
        return self.path / "gpu"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "PIOLET", "CUDA"))}
        return kept | {
            "LD_LIBRARY_PATH": str(DIRECTORY),
            "PIOLET_GPUSIM": str(self.gpu_state),
            "PIOLET_RECORD_KERNEL_LOG": str(self.path / "kmsg"),
            "PIOLET_RECORD_INTERVAL_S": "0.1",
            "PIOLET_RECORD_FLUSH_S": "1",
            "PIOLET_ROOT": str(self.path / "root"),
            "PIOLET_SITE_CONFIG": os.devnull,
            "XDG_CONFIG_HOME": "/nonexistent",
        }

    def start(self, *argv: str | Path, **options: Any) -> subprocess.Popen[str]:
        environment = self.environment | options.pop("env", {})
        process = subprocess.Popen(
            [str(part) for part in argv],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self.started.append(process)
        return process

    def agent(self, logbook: Logbook, **options: Any) -> subprocess.Popen[str]:
        """Start an agent; see `spec`."""
        names = {"name", "kernel_log", "interval_s", "standby"} & options.keys()
        chosen = {each: options.pop(each) for each in names}
        return self.start(*self.spec(logbook, **chosen).argv(), **options)

    def spec(self, logbook: Logbook, *, name: str = "n1", kernel_log: Path | None = None, **chosen: Any) -> AgentSpec:
        """An agent that flushes five times a second, so that tests are short."""
        log = kernel_log or self.path / "kmsg"
        return AgentSpec(logbook.path, name, flush_s=0.2, kernel_log=log, **{"interval_s": 0.1} | chosen)

    def record(self, *command: str | Path, options: tuple[str, ...] = (), **more: Any) -> subprocess.Popen[str]:
        return self.start(sys.executable, "-P", "-m", "piolet", "record", *options, "--", *command, **more)

    def logbooks(self) -> list[Logbook]:
        return [Logbook(path.parent) for path in sorted((self.path / "root").glob("*/*/job.json"))]

    def end(self) -> None:
        for process in self.started:
            for pid in (*agents_of(process.pid), process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.communicate(timeout=60)


def agents_of(pid: int) -> list[int]:
    """Return the children of a process."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def rows(logbook: Logbook, query: str) -> list[tuple[Any, ...]]:
    """Query a logbook; a merge that runs at the same time makes it be opened again."""
    import duckdb  # noqa: PLC0415 - tests of pure functions do without

    for _ in range(20):
        try:
            with read(logbook) as opened:
                return opened.database.execute(query).fetchall()
        except duckdb.IOException:
            time.sleep(0.05)
    raise AssertionError("the logbook cannot be read")


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., Any]:
    return wait_until


@pytest.fixture(name="rows")
def _rows() -> Callable[..., Any]:
    return rows


@pytest.fixture(name="children")
def _children() -> Callable[[int], list[int]]:
    return agents_of


@pytest.fixture(scope="session")
def _library() -> None:
    SystemRunner().run(["make", "-s", "-C", str(ROOT / "gpusim")], timeout=120)


@pytest.fixture
def node(tmp_path: Path, _library: None) -> Iterator[Node]:
    directory = tmp_path / "node"
    directory.mkdir()
    (directory / "kmsg").touch()
    made = Node(directory, gpus.write_inventory(directory / "gpu", node="n1", count=2))
    yield made
    made.end()


@pytest.fixture
def logbook(tmp_path: Path) -> Logbook:
    return create(tmp_path / "books", "lab", "7")
