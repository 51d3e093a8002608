"""A parallel walk that a kill does not undo: workers count directories, the coordinator keeps what is left to do.

Memory is bounded: what is left beyond some ten thousand directories lies in files beside the state. The state, written
every few seconds, is the tally of what was counted whole and the list of what was not.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path

from piolet.core.errors import ParseError, PioletError, StorageError, UsageError, storage_errors
from piolet.core.files import read_json, write_json
from piolet.data.scanning import Pending, Rules, scan
from piolet.data.tally import Tally

VERSION = 1
_BATCH, _BUDGET = 64, 4000
_IN_MEMORY, _SPILLED = 20_000, 10_000
_SAVE_S = 5.0
_Found = tuple[Tally, list[Pending]]


@dataclass(slots=True)
class Frontier:
    """Directories still to be counted: the latest in memory, the rest in files of `directory`."""

    directory: Path
    pending: list[Pending] = field(default_factory=list)
    spilled: list[str] = field(default_factory=list)
    count: int = 0

    def put(self, found: Sequence[Pending]) -> None:
        """Add directories; the oldest go to a file if they become too many."""
        self.pending.extend(found)
        while len(self.pending) > _IN_MEMORY:
            name = f"pending-{self.count}.json"
            self.count += 1
            write_json(self.directory / name, [asdict(each) for each in self.pending[:_SPILLED]])
            self.spilled.append(name)
            del self.pending[:_SPILLED]

    def take(self, most: int) -> list[Pending]:
        """Return up to `most` directories, the latest first; none if there are none left."""
        if not self.pending and self.spilled:
            self.pending = [Pending(**each) for each in read_json(self.directory / self.spilled.pop())]
        taken = self.pending[-most:]
        del self.pending[-most:]
        return taken


@dataclass(slots=True)
class Walk:
    """A walk under way. `doing` is what workers have in hand: it counts as not done until they answer."""

    roots: tuple[str, ...]
    rules: Rules
    frontier: Frontier
    tally: Tally = field(default_factory=Tally)
    doing: dict[Future[_Found], list[Pending]] = field(default_factory=dict)
    saved_s: float = field(default_factory=time.monotonic)

    def save(self) -> None:
        """Write the state; a walk that is resumed from it counts every directory once."""
        left = [each for batch in self.doing.values() for each in batch] + self.frontier.pending
        state = {
            "version": VERSION,
            "roots": self.roots,
            "rules": asdict(self.rules),
            "tally": self.tally.to_json(),
            "pending": [asdict(each) for each in left],
            "spilled": self.frontier.spilled,
            "count": self.frontier.count,
        }
        write_json(self.frontier.directory / "state.json", state)
        self.saved_s = time.monotonic()


def state_directory(roots: Sequence[Path], cache: Path) -> Path:
    """Return where the state of a walk of `roots` is kept, below the user's cache directory."""
    text = json.dumps([str(root) for root in roots])
    return cache / "data-check" / hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def begin(roots: Sequence[Path], rules: Rules, directory: Path) -> Walk:
    """Return a new walk; UsageError if a root is not a directory."""
    with storage_errors(directory, "keep the state of the walk"):
        directory.mkdir(parents=True, exist_ok=True)
    walk = Walk(tuple(str(root) for root in roots), rules, Frontier(directory))
    for root in roots:
        with storage_errors(root, "read"):
            status = root.stat()
        if not root.is_dir():
            raise UsageError("not a directory", where=str(root), remedy="give the directory that holds it")
        walk.tally.directories += 1
        walk.tally.inodes += 1
        walk.frontier.pending.append(Pending(str(root), str(root), status.st_dev))
    return walk


def resume(roots: Sequence[Path], directory: Path) -> Walk:
    """Return the walk of `roots` that was interrupted; UsageError if there is none."""
    try:
        state = read_json(directory / "state.json")
        frontier = Frontier(directory, [Pending(**each) for each in state["pending"]], state["spilled"], state["count"])
        return Walk(tuple(state["roots"]), Rules(**state["rules"]), frontier, Tally.from_json(state["tally"]))
    except (StorageError, ParseError, KeyError, TypeError) as error:
        raise UsageError(
            "there is no interrupted walk of these directories",
            where=" ".join(map(str, roots)),
            remedy="begin anew without --resume",
        ) from error


def finish(walk: Walk, *, workers: int, report: Callable[[Tally], None]) -> Tally:
    """Walk to the end and forget the state; `report` is shown the tally as it grows.

    Raises:
        PioletError: a worker was killed; the state is kept, as on Ctrl-C.
    """
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), initializer=_ignore_interrupts)
    try:
        _run(walk, pool, workers, report)
    except BrokenProcessPool as error:
        walk.save()
        raise PioletError(
            "a process of the walk was killed", where=walk.roots[0], remedy="go on with --resume; see dmesg for memory"
        ) from error
    except KeyboardInterrupt:
        walk.save()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    for name in ("state.json", *(path.name for path in walk.frontier.directory.glob("pending-*.json"))):
        (walk.frontier.directory / name).unlink(missing_ok=True)
    return walk.tally


def _run(walk: Walk, pool: ProcessPoolExecutor, workers: int, report: Callable[[Tally], None]) -> None:
    while True:
        while len(walk.doing) < 2 * workers and (batch := walk.frontier.take(_BATCH)):
            walk.doing[pool.submit(scan, batch, walk.rules, _BUDGET)] = batch
        if not walk.doing:
            return
        for done in wait(walk.doing, return_when=FIRST_COMPLETED).done:
            tally, left = done.result()
            del walk.doing[done]
            walk.tally.add(tally)
            walk.frontier.put(left)
        report(walk.tally)
        if time.monotonic() - walk.saved_s > _SAVE_S:
            walk.save()


def default_workers() -> int:
    """Return how many processes to walk with: file systems over a network answer many at once."""
    return max(2, min(16, len(os.sched_getaffinity(0))))


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
