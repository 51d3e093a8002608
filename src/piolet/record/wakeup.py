"""Waiting for signals, for processes to end and for the time, all at once and without a race."""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Iterable
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
"""They end a recording in good order. SIGUSR1 is for srun, which passes it on, while SIGTERM makes it kill the step."""


def hold_signals() -> None:
    """Let signals wait until the next Wakeup is made; else one that comes during a fork or an exec is lost."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def release_signals() -> None:
    """Let signals come again, in a process that has its Wakeup."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


class Wakeup:
    """Notes that the process was asked to end, and wakes whoever waits. One per process, in its main thread."""

    def __init__(self) -> None:
        self.asked_to_end = False
        self._reader, writer = socket.socketpair()
        for end in (self._reader, writer):
            end.setblocking(False)  # noqa: FBT003 - the socket's own interface
        self._writer = writer
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, self._asked)
        release_signals()

    def _asked(self, _number: int, _frame: FrameType | None) -> None:
        self.asked_to_end = True

    def wait(self, timeout_s: float, descriptors: Iterable[int] = ()) -> set[int]:
        """Wait for a signal, a descriptor that is readable or closed, or the time; return the descriptors."""
        poll = select.poll()
        for descriptor in (self._reader.fileno(), *descriptors):
            poll.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(max(0.0, timeout_s) * 1000)}
        if self._reader.fileno() in ready:
            self._reader.recv(4096)
        return ready - {self._reader.fileno()}
