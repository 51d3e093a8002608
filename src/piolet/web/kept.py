"""Answers about logbooks, each computed once, whoever asks and however many; kept until the logbook changes."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

import duckdb

from piolet.core.errors import UsageError
from piolet.logbook.layout import Logbook
from piolet.logbook.reader import rereading
from piolet.logbook.schema import FAMILIES
from piolet.watch import Book
from piolet.watch.access import Grant
from piolet.watch.book import CONFIG

T = TypeVar("T")

MOST_KEPT = 256
AT_ONCE = 2
"""Answers that are computed at the same time, of quick questions and of others; each may use what DuckDB is given."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What is known now: `value`, None while there is nothing yet, of the logbook when it was as `stamp` says.

    `stamp` is empty for an older answer that stands in for one under way.
    """

    value: T | None
    stamp: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question under way or answered, the state of the logbook that it is about, and the answer before."""

    stamp: str
    future: Future[Any]
    before: Any


class Kept:
    """The answers of a server, the latest ones; safe to use from several threads."""

    def __init__(self) -> None:
        self._asked: OrderedDict[tuple[object, ...], _Asked] = OrderedDict()
        self._lock = Lock()
        self._pools = {quick: ThreadPoolExecutor(AT_ONCE, thread_name_prefix="kept") for quick in (True, False)}

    async def answer(
        self, grant: Grant, question: Callable[[Book], T], wait_s: float | None = None, *, quick: bool = False
    ) -> Answer[T]:
        """Return the answer to `question` about a job, waiting for it as long as `wait_s` (None: until it is there).

        A question that is a `partial` looks at more than the job, so that its answer is this viewer's alone. Those that
        are `quick` do not wait for others, with which a large job may be busy for a minute.

        Raises:
            PioletError: the logbook cannot be read.
        """
        until = None if wait_s is None else time.monotonic() + wait_s
        asked = self._ask(grant, question, self._pools[quick])
        found = await _result(asked, until)
        if found and asked.stamp != stamp(grant.job.logbook):  # it was under way already, and is older than the request
            newer = self._ask(grant, question, self._pools[quick])
            found = await _result(newer, until) or found
        return found or Answer(asked.before, "")

    def _ask(self, grant: Grant, question: Callable[[Book], T], pool: ThreadPoolExecutor) -> _Asked:
        key, now = _key(grant, question), stamp(grant.job.logbook)
        with self._lock:
            kept = self._asked.get(key)
            if kept is None or (kept.stamp != now and kept.future.done()) or _failed(kept.future):
                before = None if kept is None or _failed(kept.future) else kept.future.result()
                kept = self._asked[key] = _Asked(now, pool.submit(_answered, grant, question), before)
            self._asked.move_to_end(key)
            while len(self._asked) > MOST_KEPT:
                self._asked.popitem(last=False)
        return kept


async def _result(asked: _Asked, until: float | None) -> Answer[Any] | None:
    """Wait for an answer until a time of the clock; None if it is not there by then."""
    wait_s = None if until is None else max(0.0, until - time.monotonic())
    try:
        found = await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(asked.future)), wait_s)
    except TimeoutError:
        return None
    return Answer(found, asked.stamp)


def _key(grant: Grant, question: Callable[[Book], Any]) -> tuple[object, ...]:
    job = grant.job.cluster, grant.job.job_id
    if isinstance(question, partial):
        return (*job, question.func.__name__, grant.viewer)
    return (*job, question.__name__)


def stamp(logbook: Logbook) -> str:
    """Return what changes when a logbook does: from the times of its records and of its directories of segments."""
    paths = (logbook.job, logbook.outcome, logbook.findings, *(logbook.family(name) for name in FAMILIES))
    return hashlib.sha256(repr([_changed_ns(path) for path in paths]).encode()).hexdigest()[:16]


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@rereading
def _answered(grant: Grant, question: Callable[[Book], T]) -> T:
    try:
        with Book(grant) as book:
            return question(book)
    except duckdb.OutOfMemoryException as error:
        raise UsageError(
            f"the samples of this job do not fit into the {CONFIG['memory_limit']} that a page is given",
            remedy="`piolet score` and `piolet watch diagnose` in a shell may take more; SQL over one node fits",
        ) from error


def _failed(future: Future[Any]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)
