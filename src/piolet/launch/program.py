"""Running the user's program as a step: its streams pass through untouched, its end is understood."""

from __future__ import annotations

import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from piolet.core.nodeset import NodeSet
from piolet.core.run import PIPE, Process, SystemRunner, end, exit_status
from piolet.core.stopping import Stopped, running
from piolet.launch.doom import Doom, Sign
from piolet.launch.output import Look, forward

GRACE_S = 10.0
"""Seconds between asking a program to end (SIGTERM) and ending it (SIGKILL); Slurm's own KillWait is usually 30."""

_LOOK_S = 0.2

EXIT_CODE = re.compile(r"Exited with exit code (\d+)")

_TASK_FAILED = re.compile(rb"srun: error: (?P<node>\S+): tasks? (?P<rank>\d+)[\d,-]*: (?P<what>.+)")

_NODE_FAILED = re.compile(rb"srun: error: Node failure on (?P<nodes>[\w.,\[\]-]+)")


@dataclass(frozen=True, slots=True)
class Failure:
    """The first task that srun reported as failed, or the node, and how; a node that failed has no rank."""

    node: str
    rank: int | None
    what: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit status (128 + signal if it was killed) and the first failing task.

    `doomed` is why it was ended early, if it was.
    """

    status: int
    failure: Failure | None = None
    doomed: Sign | None = None


Reason = Callable[[Process], Sign | None]
"""Called with the step again and again while it runs; gives the sign on which it should end."""


def run_step(
    argv: Sequence[str],
    runner: SystemRunner,
    look: Look | None = None,
    doom: Doom | None = None,
    reasons: Sequence[Reason] = (),
) -> Ended:
    """Run a step to its end; on a Stopped, end the step before passing it on.

    `look` is shown every line that it says as it passes; without it, standard output goes straight to ours. `doom`
    looks too. The step is ended as soon as it, or any of `reasons`, gives one.
    """
    look = _both(look, doom) if doom else look
    reasons = [*reasons, lambda _: doom.reason()] if doom else reasons
    failures: list[Failure] = []

    def look_at_errors(line: bytes) -> None:
        failures.extend(filter(None, [parse_failure(line)]))
        if look:
            look(line)

    def start() -> Process:
        return runner.start(argv, stdin=None, stdout=PIPE if look else None, stderr=PIPE, new_session=True)

    with running(start, GRACE_S) as process:
        forwarders = _forwarding(process, look, look_at_errors)
        try:
            doomed = _awaited(process, reasons)
            status = exit_status(process.wait())
        except Stopped as stop:
            end(process, GRACE_S)
            _join(forwarders)
            stop.failed_node = next((each.node for each in failures if each.rank is None), "")
            raise
        finally:
            _join(forwarders)
    failure = failures[0] if failures else None
    return Ended(_first_status(failure, status), failure, doomed)


def _forwarding(process: Process, look: Look | None, look_at_errors: Look) -> list[threading.Thread]:
    """Start to pass on what the step says; without a `look` its output does not come by here."""
    streams = [(process.stderr, sys.stderr, look_at_errors)] + ([(process.stdout, sys.stdout, look)] if look else [])
    threads = [
        threading.Thread(target=forward, args=(source, target.fileno(), each), daemon=True)
        for source, target, each in streams
        if source
    ]
    for thread in threads:
        thread.start()
    return threads


def _first_status(failure: Failure | None, status: int) -> int:
    """Return the exit status of the task that failed first; srun's is the highest of all, the others' ends among them.

    `status` is srun's, which stands where it names no task, or a way to end that has no number.
    """
    what = failure.what if failure else ""
    if exited := EXIT_CODE.search(what):
        return int(exited[1])
    named = (128 + number for number in signal.valid_signals() if what.startswith(signal.strsignal(number) or "-"))
    return next(named, status)


def _both(look: Look | None, doom: Doom) -> Look:
    def see(line: bytes) -> None:
        doom.look(line)
        if look:
            look(line)

    return see


def _awaited(process: Process, reasons: Sequence[Reason]) -> Sign | None:
    """Wait for the end of the step, or end it; return the sign if it was ended."""
    while reasons and process.poll() is None:
        sign = next(filter(None, [reason(process) for reason in reasons]), None)
        if sign:
            end(process, GRACE_S)
            return sign
        time.sleep(_LOOK_S)
    return None


def _join(forwarders: Sequence[threading.Thread]) -> None:
    for forwarder in forwarders:
        forwarder.join(timeout=GRACE_S)


def parse_failure(line: bytes) -> Failure | None:
    """Return the failed task or node that a line of srun's stderr names, if it names one."""
    lost = _NODE_FAILED.match(line)
    if lost:
        return Failure(next(iter(NodeSet(lost["nodes"].decode("ascii", "replace")))), None, "Node failure")
    match = _TASK_FAILED.match(line)
    if not match:
        return None
    node, rank, what = match["node"], match["rank"], match["what"]
    return Failure(node.decode(), int(rank), what.decode("utf-8", "replace").strip())
