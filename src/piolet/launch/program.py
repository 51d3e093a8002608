"""Running the user's program as a step: its streams pass through untouched, its end is understood."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from piolet.core.run import PIPE, SystemRunner, end, exit_status
from piolet.launch.output import Look, forward
from piolet.launch.stopping import Stopped

GRACE_S = 10.0
"""Seconds between asking a program to end (SIGTERM) and ending it (SIGKILL); Slurm's own KillWait is usually 30."""

_TASK_FAILED = re.compile(rb"srun: error: (?P<node>\S+): tasks? (?P<rank>\d+)[\d,-]*: (?P<what>.+)")


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


def run_step(argv: Sequence[str], runner: SystemRunner, look: Look | None = None) -> Ended:
    """Run a step to its end; on a Stopped, end the step before passing it on.

    `look` is shown every line that it says as it passes; without it, standard output goes straight to ours.
    """
    process = runner.start(argv, stdin=None, stdout=PIPE if look else None, stderr=PIPE, new_session=True)
    failures: list[Failure] = []

    def look_at_errors(line: bytes) -> None:
        failures.extend(filter(None, [parse_failure(line)]))
        if look:
            look(line)

    streams = [(process.stderr, sys.stderr, look_at_errors)] + ([(process.stdout, sys.stdout, look)] if look else [])
    forwarders = [
        threading.Thread(target=forward, args=(source, target.fileno(), each), daemon=True)
        for source, target, each in streams
    ]
    for forwarder in forwarders:
        forwarder.start()
    try:
        status = exit_status(process.wait())
    except Stopped:
        end(process, GRACE_S)
        raise
    finally:
        for forwarder in forwarders:
            forwarder.join(timeout=GRACE_S)
    return Ended(status, failures[0] if failures else None)


def parse_failure(line: bytes) -> Failure | None:
    """Return the failed task that a line of srun's stderr names, if it names one."""
    match = _TASK_FAILED.match(line)
    if not match:
        return None
    node, rank, what = match["node"], match["rank"], match["what"]
    return Failure(node.decode(), int(rank), what.decode("utf-8", "replace").strip())
