"""Following a ledger that another process writes: its state and its past, in memory; only what is new is read.

    with follower.known() as known:         hold it still
        views.nodes(known.fleet, policy)

It changes nothing. A ledger that is not the one that it read, as after a restored backup, is read anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from piolet.core.nodeset import names
from piolet.fleet import store
from piolet.fleet.evidence import Evidence, Kind
from piolet.fleet.history import Failures
from piolet.fleet.ledger import Entry, read
from piolet.fleet.precision import Record
from piolet.fleet.state import Fleet, fold
from piolet.fleet.store import Store, Where

JOBS_PER_NODE = 50
"""Ends of jobs that are kept of each node, the latest."""


@dataclass(slots=True)
class Known:
    """What the ledger tells: the state, how right warnings were, the failures, and how jobs ended on each node."""

    fleet: Fleet = field(default_factory=Fleet)
    record: Record = field(default_factory=Record)
    failures: Failures = field(default_factory=Failures)
    jobs: dict[str, deque[Entry]] = field(default_factory=dict)

    def take(self, entry: Entry) -> None:
        """Learn from `entry`, the next of the ledger."""
        fold(self.fleet, [entry])
        self.record.take(entry)
        self.failures.take(entry)
        match entry.content:
            case Evidence(kind=Kind.JOB, nodes=nodes):
                for name in names(nodes):
                    self.jobs.setdefault(name, deque(maxlen=JOBS_PER_NODE)).append(entry)


class Follower:
    """What is known of the ledger at `where`; safe to use from several threads."""

    def __init__(self, where: Where) -> None:
        self._where, self._known, self._lock = where, Known(), Lock()

    @contextmanager
    def known(self) -> Iterator[Known]:
        """Read what is new and hold the rest still.

        Raises:
            StorageError: the database does not answer.
        """
        with self._lock:
            with store.opened(self._where) as opened:
                self._read(opened)
            yield self._known

    def _read(self, opened: Store) -> None:
        last = self._known.fleet.last
        rows = opened.rows(last.seq - 1 if last else 0)
        if last and next(rows, ("", ""))[1] != last.hash:
            self._known, rows = Known(), opened.rows()
        for entry in read(rows):
            self._known.take(entry)
