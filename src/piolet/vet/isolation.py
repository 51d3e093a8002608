"""Running functions in a process of their own, so that one that hangs or crashes costs only its own answer.

One process runs them in turn, as long as each is quick: most checks take less time than a process does. Once one is
not, those that wait behind it get a process each. A process that is stuck in the kernel is left behind: it cannot be
ended, but it holds none of our files, so nobody waits for it. No threads may be running when this forks.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

PATIENCE_S = 0.3
"""Seconds that tasks wait behind another one."""

_STANDARD_STREAMS = (0, 1, 2)
_REAP_S = 0.05
_GO, _ENOUGH = b"+", b"-"
_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class Task:
    """A function that returns text, and the seconds that it may take; one that is `apart` shares no process."""

    name: str
    function: Callable[[], str]
    timeout_s: float
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the task returned, or in `error` why it did not."""

    name: str
    text: str
    error: str
    duration_s: float


@dataclass(slots=True)
class _Worker:
    """A process, and the tasks that it has still to do; the first of them runs."""

    tasks: list[Task]
    pid: int
    orders: int
    answers: int
    said: bytes = b""
    began_s: float = 0.0

    @property
    def deadline_s(self) -> float:
        """When somebody must look: the task is late, or others have waited for long enough."""
        timeout_s = self.tasks[0].timeout_s
        return self.began_s + (min(timeout_s, PATIENCE_S) if len(self.tasks) > 1 else timeout_s)


def run_isolated(tasks: Sequence[Task]) -> list[Outcome]:
    """Run all tasks and return their outcomes in order, `PATIENCE_S` after the longest time-out at the latest."""
    outcomes: dict[int, Outcome] = {}
    with selectors.DefaultSelector() as selector:
        _begin(selector, [task for task in tasks if not task.apart])
        for task in tasks:
            _begin(selector, [task] if task.apart else [])
        while workers := [key.data for key in selector.get_map().values()]:
            ready = selector.select(max(0.0, min(each.deadline_s for each in workers) - time.monotonic()))
            for worker in [key.data for key, _ in ready]:
                _hear(selector, worker, outcomes)
            for worker in workers:
                if worker.tasks and worker.deadline_s <= time.monotonic():
                    _lose_patience(selector, worker, outcomes)
    return [outcomes[id(task)] for task in tasks]


def _begin(selector: selectors.BaseSelector, tasks: list[Task]) -> None:
    """Start a process for `tasks`, if there are any, and let it begin."""
    if not tasks:
        return
    (read_orders, orders), (answers, write_answers) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(orders)
        os.close(answers)
        _work(tasks, read_orders, write_answers)
    os.close(read_orders)
    os.close(write_answers)
    worker = _Worker(tasks, pid, orders, answers)
    selector.register(answers, selectors.EVENT_READ, worker)
    _order(worker, _GO)


def _order(worker: _Worker, what: bytes) -> None:
    worker.began_s = time.monotonic()
    with suppress(BrokenPipeError):  # it has died, which is heard next
        os.write(worker.orders, what)


def _hear(selector: selectors.BaseSelector, worker: _Worker, outcomes: dict[int, Outcome]) -> None:
    """Take what a worker says: a piece of its answer, the last one, or nothing since it is dead."""
    part = os.read(worker.answers, 1 << 16)
    worker.said += part
    if not part:
        waiting, worker.tasks = worker.tasks[1:], worker.tasks[:1]
        _note(worker, outcomes, error=_leave(selector, worker))
        for task in waiting:
            _begin(selector, [task])
    elif len(worker.said) >= _LENGTH_BYTES + int.from_bytes(worker.said[:_LENGTH_BYTES]):
        text = worker.said[_LENGTH_BYTES:].decode("utf-8", "surrogateescape")
        _note(worker, outcomes, **({"text": text[1:]} if text[:1] == "+" else {"error": text[1:]}))
        if worker.tasks:
            _order(worker, _GO)
        else:
            _leave(selector, worker)


def _lose_patience(selector: selectors.BaseSelector, worker: _Worker, outcomes: dict[int, Outcome]) -> None:
    """Start those that wait, each in a process of its own; end the task that is late."""
    waiting, worker.tasks = worker.tasks[1:], worker.tasks[:1]
    if worker.deadline_s <= time.monotonic():
        os.kill(worker.pid, signal.SIGKILL)
        _leave(selector, worker, patience_s=_REAP_S)
        _note(worker, outcomes, error=f"no answer within {worker.tasks[0].timeout_s:g} s")
    for task in waiting:
        _begin(selector, [task])


def _note(worker: _Worker, outcomes: dict[int, Outcome], *, text: str = "", error: str = "") -> None:
    task, worker.said = worker.tasks.pop(0), b""
    outcomes[id(task)] = Outcome(task.name, text, error, time.monotonic() - worker.began_s)


def _leave(selector: selectors.BaseSelector, worker: _Worker, patience_s: float | None = None) -> str:
    """Let go of a worker that ends, and return how it died, if it has; one that was killed may be stuck in the kernel.

    It is waited for `patience_s` seconds at most.
    """
    selector.unregister(worker.answers)
    os.close(worker.answers)
    with suppress(BrokenPipeError):
        os.write(worker.orders, _ENOUGH)
    os.close(worker.orders)
    if patience_s is None:
        _, status = os.waitpid(worker.pid, 0)
        return f"ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "ended without an answer"
    deadline_s = time.monotonic() + patience_s
    while os.waitpid(worker.pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline_s:
        time.sleep(0.001)
    return ""


def _work(tasks: Sequence[Task], orders: int, answers: int) -> NoReturn:
    """Do tasks as they are ordered, and answer each: a length, and "+" and the text, or "-" and why there is none."""
    status = 1
    try:
        _detach()
        with os.fdopen(answers, "wb") as pipe:
            for task in tasks:
                if os.read(orders, 1) != _GO:
                    break
                answer = _answer(task).encode("utf-8", "surrogateescape")
                pipe.write(len(answer).to_bytes(_LENGTH_BYTES) + answer)
                pipe.flush()
        status = 0
    finally:
        os._exit(status)


def _answer(task: Task) -> str:
    """Run a task; the kernel's hand ends it should the parent not live to do it."""
    signal.setitimer(signal.ITIMER_REAL, task.timeout_s + 1)
    try:
        return "+" + task.function()
    except BaseException as error:  # noqa: BLE001 - the check runner: whatever it is, it is the outcome
        import traceback  # noqa: PLC0415 - nodes start quickly

        return "-" + " ".join(traceback.format_exception_only(error)[-1].split())


def _detach() -> None:
    """Let go of the streams of the step."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in _STANDARD_STREAMS:
        os.dup2(null, stream)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
