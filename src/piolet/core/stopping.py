"""Being asked to end: SIGTERM and SIGINT become an exception, but never in the middle of what must be whole."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from piolet.core.run import Process, end

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """This process was asked to end by `signal_number`. Like KeyboardInterrupt, it is not an error.

    `failed_node` is the node whose failure is why, where that is known.
    """

    def __init__(self, signal_number: int) -> None:
        self.signal_number = signal_number
        self.failed_node = ""
        super().__init__(signal.Signals(signal_number).name)


class _Handler:
    """Raises Stopped, or remembers it while work that must be whole is under way."""

    def __init__(self) -> None:
        self.holding = 0
        self.waiting: int | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if self.holding:
            self.waiting = number
        else:
            raise Stopped(number)


_handler = _Handler()


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into Stopped inside the block. For the main thread."""
    old = {number: signal.signal(number, _handler) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Finish the block first: a Stopped that arrives meanwhile is raised at its end."""
    _handler.holding += 1
    try:
        yield
    finally:
        _handler.holding -= 1
        waiting, _handler.waiting = _handler.waiting, None
        if waiting is not None and not _handler.holding:
            raise Stopped(waiting)


@contextmanager
def running(start: Callable[[], Process], grace_s: float) -> Iterator[Process]:
    """Start a process that ends with the block, `grace_s` seconds after it was asked to, whenever a Stopped comes."""
    process: Process | None = None
    try:
        with undisturbed():
            process = start()
        yield process
    finally:
        if process:
            with undisturbed():
                end(process, grace_s)
