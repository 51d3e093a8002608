"""The service: the single writer of the ledger, and the hands that act on what it decided.

One thread learns: it takes all reports that wait into one transaction, and answers when they are on the disk. Another
looks at Slurm every `OBSERVE_S` seconds, and acts as soon as something is to be done. Both hold the lock when they
touch the fleet; neither holds it while it waits for Slurm. When the database goes away, everything in memory is
dropped, reporters are told to come again, and the ledger is read anew when it is back.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from piolet.core.errors import PioletError, StorageError
from piolet.core.log import logger
from piolet.core.run import Runner
from piolet.fleet import applying, blame, center, gathering, identity
from piolet.fleet.center import Center
from piolet.fleet.evidence import Evidence
from piolet.fleet.identity import Caller
from piolet.fleet.ledger import Content, Firing, Instruction, Mode
from piolet.fleet.planning import Plan, Seen
from piolet.fleet.policy import Policy
from piolet.fleet.store import Where
from piolet.logbook.layout import Logbook
from piolet.tools.slurm.errors import SlurmUnavailable

OBSERVE_S = 15.0
"""Seconds between two looks at all of Slurm."""

ACCOUNTS_S = 3600.0
"""Seconds between two questions to the accounting database."""

READ_S = 60.0
"""Seconds between two looks at the logbooks."""

BLAME_S = 6 * 3600.0
"""Seconds between two rankings of lemons, which take some seconds on a large cluster."""

WAITING = 500
"""Reports that may wait; more are told to come again."""

_TOGETHER = 100
_MOST_S = 7 * 86_400.0
_TOKENS_S = 5.0
_AGAIN_S = (0.5, 5.0)


class Busy(PioletError):  # noqa: N818 - the state that it names
    """The service cannot take anything now; come again."""


@dataclass(slots=True)
class _Waiting:
    evidence: Sequence[Evidence]
    answer: Future[int] = field(default_factory=Future)


class Service:
    """See the module. `start` and `stop` it; `submit`, `instruct` and `reading` may be called by any thread."""

    def __init__(
        self, where: Where, policy: Callable[[], Policy], runner: Runner, cluster: str, roots: Sequence[Path] = ()
    ) -> None:
        self._where, self._policy, self._runner, self._cluster = where, policy, runner, cluster
        self._roots = roots
        self._queue: queue.Queue[_Waiting] = queue.Queue(WAITING)
        self._lock = threading.RLock()
        self._center: Center | None = None
        self._seen: tuple[Seen, ...] = ()
        self._names: frozenset[str] = frozenset()
        self._tokens: tuple[float, dict[str, Caller]] = (0.0, {})
        self._asked_s = -ACCOUNTS_S
        self._stopping, self._act = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=each, daemon=True)
            for each in (self._learn_for_ever, self._act_for_ever, self._read_for_ever)
        ]

    def start(self) -> None:
        """Begin to learn and to act."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish what is begun, and end."""
        self._stopping.set()
        self._act.set()
        for thread in self._threads:
            thread.join()

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes of the cluster.

        Raises:
            Busy: Slurm has not told yet.
        """
        if not self._names:
            raise Busy("Slurm has not yet told which nodes there are", remedy="come again in a moment")
        return self._names

    def submit(self, evidence: Sequence[Evidence]) -> Future[int]:
        """Return the future number of pieces that were new, which is known when they are on the disk.

        Raises:
            Busy: too many wait already, or the database is away.
        """
        waiting = _Waiting(evidence)
        if self._center is None:
            raise Busy("the fleet's database is away", remedy="keep the report and come again")
        try:
            self._queue.put_nowait(waiting)
        except queue.Full as error:
            raise Busy("too many reports wait", remedy="keep the report and come again") from error
        return waiting.answer

    def instruct(self, said: Instruction) -> None:
        """Write an operator's order, and act on it."""
        with self.reading() as opened:
            opened.instruct(said)
        self._act.set()

    def known(self, token_hash: str) -> Caller | None:
        """Return the bearer of a token; a new or revoked one is noticed within seconds."""
        read_s, tokens = self._tokens
        if time.monotonic() - read_s > _TOKENS_S:
            with self.reading() as opened:
                tokens = identity.callers(opened.store.tokens())
            self._tokens = (time.monotonic(), tokens)
        return tokens.get(token_hash)

    @contextmanager
    def reading(self) -> Iterator[Center]:
        """Hold the fleet still.

        Raises:
            Busy: the database is away.
        """
        with self._lock:
            if self._center is None:
                raise Busy("the fleet's database is away", remedy="come again in a moment")
            yield self._center

    def plan(self) -> Plan:
        """Return what is to be done now."""
        with self.reading() as opened:
            return opened.plan(self._seen)

    def _learn_for_ever(self) -> None:
        again_s = _AGAIN_S[0]
        while not self._stopping.is_set():
            try:
                with center.opened(self._where, self._policy()) as opened:
                    self._hold(opened)
                    again_s = _AGAIN_S[0]
                    self._learn()
            except PioletError as error:
                logger("fleet").error("the ledger is away", error=error.what, where=error.where)
            except Exception:  # noqa: BLE001 - the loop goes on, and says what went wrong
                logger("fleet").exception("cannot decide")
            finally:
                self._let_go()
            self._stopping.wait(again_s)
            again_s = min(2 * again_s, _AGAIN_S[1])

    def _hold(self, opened: Center) -> None:
        with self._lock:
            self._center = opened
        self._act.set()
        logger("fleet").info("deciding", entries=opened.fleet.last.seq if opened.fleet.last else 0)

    def _let_go(self) -> None:
        with self._lock:
            self._center = None
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait().answer.set_exception(Busy("the fleet's database is away"))

    def _learn(self) -> None:
        while not self._stopping.is_set():
            batches = self._next()
            if self._center is None:  # the hands have lost the database
                raise StorageError("the database went away", where="", remedy="")
            if not batches:
                continue
            try:
                with self.reading() as opened:
                    written = opened.gather_all([one.evidence for one in batches], len(self._seen))
            except BaseException:
                for one in batches:
                    one.answer.set_exception(Busy("the fleet's database is away"))
                raise
            for one, entries in zip(batches, written, strict=True):
                one.answer.set_result(sum(isinstance(entry.content, Evidence) for entry in entries))
            if any(_wants_action(entry.content) for entries in written for entry in entries):
                self._act.set()

    def _next(self) -> list[_Waiting]:
        """Return all that wait, at most so many together; nothing after a short while without any."""
        found: list[_Waiting] = []
        with suppress(queue.Empty):
            found.append(self._queue.get(timeout=0.2))
            while len(found) < _TOGETHER:
                found.append(self._queue.get_nowait())
        return found

    def _act_for_ever(self) -> None:
        """Look at Slurm when it is time, and act then and whenever something new is wanted."""
        observed_s = -OBSERVE_S
        while not self._stopping.is_set():
            self._act.wait(max(0.0, observed_s + OBSERVE_S - time.monotonic()))
            self._act.clear()
            opened = self._center
            if opened is None:
                self._act.wait(1.0)  # whoever opens the ledger sets it
                continue
            due = time.monotonic() - observed_s >= OBSERVE_S
            observed_s = time.monotonic() if due else observed_s
            self._turn(opened, due=due)

    def _turn(self, opened: Center, *, due: bool) -> None:
        try:
            applying.finish(opened.fleet, opened.hands(self._runner), self._writing(opened))
            if due:
                self._observe(opened)
            self._carry_out(opened)
        except StorageError as error:
            logger("fleet").error("the ledger is away", error=error.what)
            self._lost(opened)
        except PioletError as error:  # Slurm is away, or refuses: the next look tells more
            logger("fleet").error("cannot act", error=error.what, where=error.where)
        except Exception:  # noqa: BLE001 - the loop goes on, and says what went wrong
            logger("fleet").exception("cannot act")

    def _read_for_ever(self) -> None:
        """Read the logbooks that have changed since they were read, and now and then find lemons."""
        read: dict[Path, int] = {}
        blamed_s = time.monotonic()
        while not self._stopping.wait(READ_S if read else 1.0):
            for logbook in (one for root in self._roots for one in gathering.logbooks(root)):
                if self._stopping.is_set():
                    return
                stamp = gathering.changed_ns(logbook)
                if read.get(logbook.path) != stamp and self._read(logbook):
                    read[logbook.path] = stamp
            if time.monotonic() - blamed_s >= BLAME_S:
                blamed_s = time.monotonic()
                self._blame()

    def _blame(self) -> None:
        with suppress(Busy):
            with self.reading() as opened:
                observed, now_ns = opened.fleet.observed, opened.now_ns()
            self.submit(blame.lemons(blame.ranking(observed, now_ns), now_ns)).result()

    def _read(self, logbook: Logbook) -> bool:
        """Return whether the logbook need not be read again until it changes."""
        evidence, unreadable = gathering.from_logbooks([logbook])
        for finding in unreadable:
            logger("fleet").warning("left out", logbook=finding.subject, why=finding.reason)
        try:
            self.submit(evidence).result()
        except Busy:
            return False
        return True

    def _lost(self, opened: Center) -> None:
        with self._lock:
            if self._center is opened:
                self._center = None

    def _observe(self, opened: Center) -> None:
        with self._lock:
            vetting = opened.fleet.vet_jobs
        seen = gathering.cluster_now(self._runner)
        evidence = gathering.from_slurm(self._runner, self._cluster, vetting, seen)
        evidence += self._accounts(opened)
        with self._lock:
            self._seen, self._names = tuple(seen), frozenset(one.name for one in seen)
            opened.gather(evidence, len(seen))
            opened.settle(seen)

    def _accounts(self, opened: Center) -> list[Evidence]:
        """Ask the accounting database, if there is one, for what the controller forgot while nobody looked."""
        if time.monotonic() - self._asked_s < ACCOUNTS_S:
            return []
        self._asked_s = time.monotonic()
        away_s = (time.time_ns() - opened.fleet.time_ns) / 1e9
        with suppress(SlurmUnavailable):
            return gathering.from_accounts(self._runner, self._cluster, round(min(away_s, _MOST_S) + 2 * ACCOUNTS_S))
        return []

    def _carry_out(self, opened: Center) -> None:
        """Do what is to be done; what was done is seen at once, so that nothing is planned on an old look."""
        hands, write = opened.hands(self._runner), self._writing(opened)
        with self._lock:
            actions = opened.plan(self._seen).actions
        for action in actions:
            if self._stopping.is_set():
                return
            applying.apply([action], opened.fleet, hands, write)
            here = gathering.node_now(self._runner, action.node)
            with self._lock:
                self._seen = tuple(here if here and one.name == here.name else one for one in self._seen)
        if actions:
            self._act.set()

    def _writing(self, opened: Center) -> applying.Write:
        def write(contents: Iterable[Content]) -> None:
            with self._lock:
                opened.write(contents)

        return write


def _wants_action(content: Content) -> bool:
    return isinstance(content, Firing) and content.mode is Mode.ACT
