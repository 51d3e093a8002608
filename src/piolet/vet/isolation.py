"""Running functions in processes of their own, so that one that hangs or crashes costs only its own answer.

All run at once. A process that is stuck in the kernel is left behind: it cannot be ended, but it holds none of
our files, so nobody waits for it. No threads may be running when this forks.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

_STANDARD_STREAMS = (0, 1, 2)
_REAP_S = 0.05


@dataclass(frozen=True, slots=True)
class Task:
    """A function that returns text, and the seconds that it may take."""

    name: str
    function: Callable[[], str]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the task returned, or in `error` why it did not."""

    name: str
    text: str
    error: str
    duration_s: float


@dataclass(slots=True)
class _Running:
    task: Task
    pid: int
    pipe: int
    started_s: float
    said: bytes = b""
    trouble: str = ""
    duration_s: float = 0.0

    @property
    def deadline_s(self) -> float:
        return self.started_s + self.task.timeout_s


def run_isolated(tasks: Sequence[Task]) -> list[Outcome]:
    """Run all tasks at once and return their outcomes in order, at the latest when the longest time-out is over."""
    running = [_started(task) for task in tasks]
    with selectors.DefaultSelector() as selector:
        for each in running:
            selector.register(each.pipe, selectors.EVENT_READ, each)
        while selector.get_map():
            waiting = [key.data for key in selector.get_map().values()]
            ready = selector.select(max(0.0, min(each.deadline_s for each in waiting) - time.monotonic()))
            for key, _ in ready:
                if not _heard(key.data):
                    _leave(selector, key.data)
            for each in _late(selector):
                each.trouble = f"no answer within {each.task.timeout_s:g} s"
                _leave(selector, each)
    return [_outcome(each) for each in running]


def _started(task: Task) -> _Running:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(task, writer)
    os.close(writer)
    return _Running(task, pid, reader, time.monotonic())


def _child(task: Task, writer: int) -> NoReturn:
    """Run the task and write its answer: "+" and the text, or "-" and why there is none."""
    status = 1
    try:
        _detach(task.timeout_s)
        try:
            answer = "+" + task.function()
        except BaseException as error:  # noqa: BLE001 - the check runner: whatever it is, it is the outcome
            answer = "-" + " ".join(traceback.format_exception_only(error)[-1].split())
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(answer.encode("utf-8", "surrogateescape"))
        status = 0
    finally:
        os._exit(status)


def _detach(timeout_s: float) -> None:
    """Let go of the streams of the step, and end by the kernel's hand should the parent not live to do it."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in _STANDARD_STREAMS:
        os.dup2(null, stream)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout_s + 1)


def _heard(each: _Running) -> bool:
    part = os.read(each.pipe, 1 << 16)
    each.said += part
    return bool(part)


def _late(selector: selectors.BaseSelector) -> list[_Running]:
    now = time.monotonic()
    return [key.data for key in selector.get_map().values() if key.data.deadline_s <= now]


def _leave(selector: selectors.BaseSelector, each: _Running) -> None:
    """Stop listening and end the process; do not wait for one that cannot be ended."""
    selector.unregister(each.pipe)
    os.close(each.pipe)
    each.duration_s = time.monotonic() - each.started_s
    if each.trouble:
        os.kill(each.pid, signal.SIGKILL)
        _reap(each.pid)
        return
    _, status = os.waitpid(each.pid, 0)
    if os.WIFSIGNALED(status):
        each.trouble = f"ended by signal {os.WTERMSIG(status)}"


def _reap(pid: int) -> None:
    """Wait for a process that was killed, but only for as long as the kernel needs for one that is not stuck."""
    deadline_s = time.monotonic() + _REAP_S
    while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline_s:
        time.sleep(0.001)


def _outcome(each: _Running) -> Outcome:
    text = each.said.decode("utf-8", "surrogateescape")
    answer, error = (text[1:], "") if text[:1] == "+" else ("", text[1:])
    if each.trouble or not text:
        answer, error = "", each.trouble or "ended without an answer"
    return Outcome(each.task.name, answer, error, each.duration_s)
