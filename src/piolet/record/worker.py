"""A thread per collector, so that one that fails or hangs leaves the others alone."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from piolet.core.errors import PioletError
from piolet.core.log import logger
from piolet.core.nouns import Severity
from piolet.logbook.schema import NOT_APPLICABLE
from piolet.record.clock import ticks
from piolet.record.collector import Collector, Context, Entry, Listener, NotApplicable, event

T = TypeVar("T")

MAX_WAITING = 20_000
"""Rows that wait while the sampler is held up by a hung file system; older ones are dropped, and counted."""

SECOND_NS = 1_000_000_000

HUNG_S = 5.0
"""A source that does not answer for longer is reported; most answer within milliseconds."""


class Mailbox:
    """Rows on their way from the collectors to the writer; bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=MAX_WAITING)
        self._dropped = 0

    def put(self, entries: Iterable[Entry]) -> None:
        """Add rows; the oldest make room if need be."""
        with self._lock:
            for entry in entries:
                self._dropped += len(self._entries) == MAX_WAITING
                self._entries.append(entry)

    def take(self) -> tuple[list[Entry], int]:
        """Return and remove all rows; with them, how many were dropped since the last call."""
        with self._lock:
            taken = list(self._entries), self._dropped
            self._entries.clear()
            self._dropped = 0
            return taken


class Worker:
    """Runs one collector in a daemon thread until `stop` is set."""

    def __init__(
        self,
        name: str,
        factory: Callable[[Context], Collector],
        context: Context,
        *,
        interval_ns: int,
        mailbox: Mailbox,
        stop: threading.Event,
    ) -> None:
        self.name = name
        self._factory = factory
        self._context = context
        self._interval_ns = interval_ns
        self._mailbox = mailbox
        self._stop = stop
        self._busy_since_s: float | None = None
        self._failing = False
        self._reported_hung = False
        self._collector: Collector | None = None

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name=self.name, daemon=True).start()

    def check(self, now_s: float) -> None:
        """Report, once, a collector that has not answered for HUNG_S; `now_s` is of the monotonic clock."""
        since_s = self._busy_since_s
        if since_s is None or now_s - since_s < HUNG_S or self._reported_hung:
            return
        self._reported_hung = True
        self._report("unavailable", f"has not answered for {now_s - since_s:.0f} s", Severity.WARNING)

    def finish(self, time_ns: int) -> None:
        """Take what a listener still holds, at the end of the recording."""
        if isinstance(listener := self._collector, Listener):
            self._mailbox.put(self._guarded(lambda: list(listener.finish(time_ns))) or ())

    def _run(self) -> None:
        collector = self._collector = self._guarded(lambda: self._factory(self._context))
        if collector is None:
            return
        for tick_ns in ticks(self._interval_ns, self._stop.wait, first_ns=SECOND_NS):
            entries = self._guarded(lambda: list(collector.collect(tick_ns)))  # noqa: B023 - called at once
            if entries is not None:
                self._mailbox.put(entries)
                self._answered()

    def _guarded(self, call: Callable[[], T]) -> T | None:
        """Call into a collector; what it raises becomes an event, once; a surprise is logged with its traceback."""
        self._busy_since_s = time.monotonic()
        try:
            return call()
        except NotApplicable as error:
            self._report(NOT_APPLICABLE, error.what, Severity.INFO)
            return None
        except Exception as error:  # noqa: BLE001 - a collector may fail in any way; the loop goes on
            if not self._failing:
                self._failing = True
                if not isinstance(error, PioletError):  # whose message says it all
                    logger("record").warning("collector failed", collector=self.name, exc_info=True)
                self._report("unavailable", str(error).replace("\n", "; "), Severity.WARNING)
            return None
        finally:
            self._busy_since_s = None

    def _answered(self) -> None:
        if self._failing or self._reported_hung:
            self._failing = self._reported_hung = False
            self._report("recovered", "answers again", Severity.INFO)

    def _report(self, code: str, what: str, severity: Severity) -> None:
        self._mailbox.put([event(time.time_ns(), "collector", code, f"{self.name}: {what}", severity=severity)])
