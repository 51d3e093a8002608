"""Running the user's program as a step: its streams pass through untouched, its end is understood."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from piolet.core.run import PIPE, Process, SystemRunner, end, exit_status

GRACE_S = 10.0
"""Seconds between asking a program to end (SIGTERM) and ending it (SIGKILL); Slurm's own KillWait is usually 30."""

_LONGEST_LINE = 4096
_TASK_FAILED = re.compile(rb"srun: error: (?P<node>\S+): tasks? (?P<rank>\d+)[\d,-]*: (?P<what>.+)")


class Stopped(Exception):  # noqa: N818 - a request to stop, not an error
    """This process was asked to end by `signal_number`."""

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        super().__init__(signal.Signals(signal_number).name)


@dataclass(frozen=True, slots=True)
class Failure:
    """The first task that srun reported as failed, and how."""

    node: str
    rank: int
    what: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit status (128 + signal if it was killed) and the first failing task."""

    status: int
    failure: Failure | None = None


def run_step(argv: Sequence[str], env: Mapping[str, str]) -> Ended:
    """Run a step to its end; on a Stopped, end the step before passing it on."""
    process = SystemRunner(env).start(argv, stdin=None, stderr=PIPE, new_session=True)
    failures: list[Failure] = []
    forwarder = threading.Thread(target=_forward, args=(process, failures), daemon=True)
    forwarder.start()
    try:
        status = exit_status(process.wait())
    except Stopped:
        end(process, GRACE_S)
        raise
    forwarder.join(timeout=GRACE_S)
    return Ended(status, failures[0] if failures else None)


def parse_failure(line: bytes) -> Failure | None:
    """Return the failed task that a line of srun's stderr names, if it names one."""
    match = _TASK_FAILED.match(line)
    if not match:
        return None
    node, rank, what = match["node"], match["rank"], match["what"]
    return Failure(node.decode(), int(rank), what.decode("utf-8", "replace").strip())


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into Stopped inside the block."""
    old = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold SIGTERM and SIGINT back until the block is over, so that its work is not half done."""
    held = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Stopped(number)


def _forward(process: Process, failures: list[Failure]) -> None:
    """Pass stderr on as it comes, byte for byte, and note the failed tasks that srun names in it."""
    if process.stderr is None:
        return
    line = b""
    while chunk := os.read(process.stderr.fileno(), 65536):
        sys.stderr.buffer.write(chunk)
        sys.stderr.buffer.flush()
        *lines, line = (line + chunk).split(b"\n")
        line = line[-_LONGEST_LINE:]
        failures += filter(None, map(parse_failure, lines))
