"""What the program says of itself: one-line datagrams from `piolet.log` become the family `user` and phases.

The format is in docs/reference/user-metrics.md. Only processes of the recorder's own user are heard. Whatever they
send, memory, rows and time stay bounded: what is refused, too much or lost on the way is counted and told.
"""

from __future__ import annotations

import math
import os
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from piolet.core.errors import PioletError
from piolet.core.nouns import Severity
from piolet.record.collector import Context, Entry, event

MAX_BYTES = 2048
MAX_WAITING = 1000
"""Reports that wait for the next sampling time. With more, the kernel's queue fills and the sender drops."""

ROWS_PER_S = 500
MAX_ROWS_AT_ONCE = 2000
"""Rows are thinned to these, so that the segments of a program that reports every microsecond stay small."""

MAX_NAMES = 64

_WORD = re.compile(r"([^\W\d][\w./-]{0,63})=([\w.+:/-]{1,64})")
_LARGEST = {"rank": 2**31 - 1, "step": 2**63 - 1, "lost": 2**31 - 1}
_CREDENTIALS = struct.Struct("3i")
_CONTROL_BYTES = socket.CMSG_SPACE(_CREDENTIALS.size)
"""Room for the sender's credentials and nothing else: descriptors that it sends along are discarded."""


@dataclass(frozen=True, slots=True)
class Report:
    """One datagram: the rank, the training step, the numbers by name, the phase entered, and reports lost before.

    A `source` is named by who reports for the program, having read its output.
    """

    rank: int | None = None
    step: int | None = None
    lost: int = 0
    phase: str = ""
    source: str = ""
    values: Mapping[str, float] = field(default_factory=dict)


def parse(datagram: bytes) -> Report | None:
    """Return the report in a datagram, None if it is not one: `rank=0 step=12 loss=0.53` or `rank=0 phase=training`."""
    try:
        matches = [_WORD.fullmatch(word) for word in datagram.decode().split()]
        words = {match[1]: match[2] for match in matches if match}
        if not words or len(words) != len(matches) or len(datagram) > MAX_BYTES:
            return None
        numbers = {name: _whole(words.pop(name), most) for name, most in _LARGEST.items() if name in words}
        phase, source = words.pop("phase", ""), words.pop("source", "")
        return Report(
            rank=numbers.get("rank"),
            step=numbers.get("step"),
            lost=numbers.get("lost", 0),
            phase=phase,
            source=source,
            values={name: float(text) for name, text in words.items()},
        )
    except ValueError:  # not UTF-8, or not a number
        return None


def _whole(text: str, most: int) -> int:
    number = int(text)
    if not 0 <= number <= most:
        raise ValueError(text)
    return number


@dataclass(slots=True)
class Ledger:
    """Turns reports into rows within the bounds, and counts what it could not take."""

    names: set[str] = field(default_factory=set)
    own: set[str] = field(default_factory=set)
    phase: str = ""
    room: float = MAX_ROWS_AT_ONCE
    counted_s: float | None = None
    refused: int = 0
    thinned: int = 0
    lost: int = 0
    told: int = 0

    def rows(self, time_ns: int, report: Report | None) -> Iterator[Entry]:
        """Yield the rows of a report that came at `time_ns`; None is a datagram that was none."""
        if report is None:
            self.refused += 1
            return
        self.lost += report.lost
        if report.phase and report.rank in {0, None} and report.phase != self.phase and self._taken():
            self.phase = report.phase
            yield event(time_ns, "phase", report.phase, f"the program enters {report.phase}")
        for name, value in report.values.items():
            if self._wanted(name, report.source) and self._taken():
                yield "user", _row(time_ns, report, name, value)

    def refill(self, now_s: float) -> None:
        """Make room for the rows of the time since the last call; `now_s` is of the monotonic clock."""
        elapsed_s = now_s - (now_s if self.counted_s is None else self.counted_s)
        self.room = min(MAX_ROWS_AT_ONCE, self.room + ROWS_PER_S * elapsed_s)
        self.counted_s = now_s

    def troubles(self, time_ns: int, *, final: bool = False) -> Iterator[Entry]:
        """Yield what was not taken, if its number has doubled since it was told or this is the last time."""
        count = self.refused + self.thinned + self.lost
        if count > self.told and (final or count >= 2 * self.told):
            self.told = count
            what = f"{self.refused} refused, {self.thinned} above {ROWS_PER_S} a second, {self.lost} not delivered"
            message = f"the program's own metrics are incomplete: {what}"
            yield event(time_ns, "user", "incomplete", message, severity=Severity.WARNING)

    def _wanted(self, name: str, source: str) -> bool:
        """Return whether the name is within the bound, and no second-hand version of what the program itself tells."""
        if name not in self.names and len(self.names) >= MAX_NAMES:
            self.refused += 1
            return False
        self.names.add(name)
        if not source:
            self.own.add(name)
        return not source or name not in self.own

    def _taken(self) -> bool:
        taken = self.room >= 1
        self.room -= taken
        self.thinned += not taken
        return taken


def _row(time_ns: int, report: Report, name: str, value: float) -> dict[str, object]:
    number = value if math.isfinite(value) else None
    return {"time_ns": time_ns, "rank": report.rank, "name": name, "value": number, "step": report.step}


class UserCollector:
    """Listens from its construction on, in a thread: the kernel's own queue is short."""

    def __init__(self, context: Context) -> None:
        self._socket = listen("\0" + context.metrics)
        self._waiting: list[tuple[int, bytes]] = []
        self._ledger = Ledger()
        self._lock = threading.Lock()
        self._room = threading.Event()
        self._room.set()
        self._closed = False
        self._thread = threading.Thread(target=self._listen, name="user metrics", daemon=True)
        self._thread.start()

    def collect(self, time_ns: int) -> list[Entry]:
        """Return the rows of what came since the last call, each with the time at which it came."""
        with self._lock:
            return [*self._rows(), *self._ledger.troubles(time_ns)]

    def finish(self, time_ns: int) -> list[Entry]:
        """Return what is left when the recording ends, even what the thread has not yet read."""
        with self._lock:
            first = self._rows()
            self._receive()
            return [*first, *self._rows(), *self._ledger.troubles(time_ns, final=True)]

    def close(self) -> None:
        """Stop listening."""
        self._closed = True
        self._socket.shutdown(socket.SHUT_RDWR)
        self._room.set()
        self._thread.join()
        self._socket.close()

    def _rows(self) -> list[Entry]:
        waiting, self._waiting = self._waiting, []
        self._room.set()
        self._ledger.refill(time.monotonic())
        return [entry for came_ns, datagram in waiting for entry in self._ledger.rows(came_ns, parse(datagram))]

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not self._closed:
            poll.poll()
            with self._lock:
                self._receive()
                if len(self._waiting) >= MAX_WAITING:
                    self._room.clear()
            self._room.wait()

    def _receive(self) -> None:
        """Take what the kernel has, as far as there is room. A stranger's datagram takes its place as an empty one."""
        while len(self._waiting) < MAX_WAITING and not self._closed:
            try:
                datagram, control, _, _ = self._socket.recvmsg(MAX_BYTES + 1, _CONTROL_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            self._waiting.append((time.time_ns(), datagram if _sender(control) == os.geteuid() else b""))


def listen(address: str) -> socket.socket:
    """Bind the abstract socket to which programs report.

    Raises:
        PioletError: somebody else has the name, or there is none.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise PioletError(
            f"the program's own metrics cannot be received: {error.strerror}",
            where=address.replace("\0", "@"),
            remedy="look for who holds the name with `ss -xlp`",
        ) from error
    return listener


def _sender(control: list[tuple[int, int, bytes]]) -> int:
    """Return the user id that the kernel attests for a datagram."""
    for level, kind, data in control:
        if (level, kind, len(data)) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, _CREDENTIALS.size):
            return int(_CREDENTIALS.unpack(data)[1])
    return -1
