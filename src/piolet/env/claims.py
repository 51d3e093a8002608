"""One process of many does a piece of work, and the others wait for it.

Without flock, which shared file systems may not honour between hosts.
A claim is a file ``KEY.NUMBER.json``, made by a hard link, which only one can make, and rewritten by its owner every
`BEAT_S` seconds. A claim whose owner is gone from this host, or whose content has not changed for `STALE_S` seconds
by the clock of who watches, is dead; who then makes the claim with the next number goes on. An owner that was only
asleep is no danger: what it makes is published in one atomic step, in which the first wins.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from piolet.core.errors import PioletError, storage_errors
from piolet.core.files import write_text

T = TypeVar("T")
BEAT_S = 2.0
STALE_S = 90.0
"""More than the minute for which NFS clients may show an old directory."""
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class State:
    """What an owner says of itself and its work; `error` ends it."""

    host: str
    boot: str
    pid_namespace: str
    pid: int
    started: str
    beat: int = 0
    doing: str = "starting"
    done_bytes: int = 0
    total_bytes: int = 0
    error: str = ""


@dataclass(slots=True)
class Claim:
    """A claim that this process holds."""

    path: Path
    state: State
    above: Claim | None = None
    """The claim that this one is made for: its waiters are shown the same."""

    def say(self, doing: str, done_bytes: int = 0, total_bytes: int = 0) -> None:
        """Set what waiters are shown; it is written with the next beat."""
        self.state = replace(self.state, doing=doing, done_bytes=done_bytes, total_bytes=total_bytes)
        if self.above:
            self.above.say(doing, done_bytes, total_bytes)

    def write(self) -> None:
        """Write the state as it is now."""
        self.state = replace(self.state, beat=self.state.beat + 1)
        write_text(self.path, json.dumps(asdict(self.state)))


def once(
    directory: Path,
    key: str,
    ready: Callable[[], T | None],
    make: Callable[[Claim], T],
    *,
    timeout_s: float,
    show: Callable[[State], None] = lambda _: None,
    stale_s: float = STALE_S,
) -> T:
    """Return what is `ready`, having one process of all that ask `make` it; `show` is told what is waited for.

    Raises:
        PioletError: the work failed, here or where it was waited for; or `timeout_s` seconds have passed.
    """
    deadline, watch, waited_for = time.monotonic() + timeout_s, _Watch(stale_s), -1
    while (found := ready()) is None:
        number, state = _newest(directory, key)
        if state and state.error and number == waited_for:
            raise PioletError(state.error, where=f"the import by process {state.pid} on {state.host}")
        if state is None or state.error or watch.is_dead(number, state):
            claim = _made(directory, key, number + 1)
            if claim:
                return _worked(directory, key, claim, ready, make)
            continue
        waited_for = number
        show(state)
        if time.monotonic() > deadline:
            raise PioletError(
                f"the image was not imported within {timeout_s:g} s: {state.doing}",
                where=f"process {state.pid} on {state.host}",
                remedy="wait longer (setting env.import_timeout_s), or end that process: the next one goes on",
            )
        time.sleep(_POLL_S)
    return found


def _worked(directory: Path, key: str, claim: Claim, ready: Callable[[], T | None], make: Callable[[Claim], T]) -> T:
    """Do the work under the claim. Its end is seen by waiters as it is: ready, or the error."""
    with _beating(claim):
        try:
            found = ready()  # somebody may have finished between our look and our claim
            found = make(claim) if found is None else found
        except Exception as error:
            claim.state = replace(claim.state, error=str(error))
            raise
        except BaseException:  # told to end: others may go on at once
            claim.state = replace(claim.state, error="the import was interrupted")
            raise
    for left in directory.glob(f"{key}.*.json"):
        left.unlink(missing_ok=True)
    return found


@contextlib.contextmanager
def _beating(claim: Claim) -> Iterator[None]:
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_S):
            with contextlib.suppress(PioletError):  # a full disk ends the work itself
                claim.write()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(PioletError):
            claim.write()


def _newest(directory: Path, key: str) -> tuple[int, State | None]:
    numbers = [int(path.name.split(".")[-2]) for path in directory.glob(f"{key}.*.json")]
    while numbers:
        number = max(numbers)
        try:
            return number, State(**json.loads((directory / f"{key}.{number}.json").read_text()))
        except FileNotFoundError:
            numbers.remove(number)
    return 0, None


def _made(directory: Path, key: str, number: int) -> Claim | None:
    """Make the claim; None if another has."""
    claim = Claim(directory / f"{key}.{number}.json", own_state())
    draft = directory / f".{key}.{os.urandom(4).hex()}.draft"
    with storage_errors(directory, "claim the import"):
        directory.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(asdict(claim.state)))
        try:
            claim.path.hardlink_to(draft)
        except FileExistsError:
            return None
        finally:
            draft.unlink()
    return claim


def own_state() -> State:
    """Return what identifies this process."""
    pid = os.getpid()
    return State(os.uname().nodename, _boot(), _pid_namespace(), pid, _started(pid))


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _started(pid: int) -> str:
    """Return when the process started, in ticks since the boot, empty if there is none: pids are used again."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


class _Watch:
    """Judges whether the owner of a claim lives."""

    def __init__(self, stale_s: float) -> None:
        self._stale_s = stale_s
        self._seen: tuple[int, int] | None = None
        self._since = 0.0

    def is_dead(self, number: int, state: State) -> bool:
        if (state.boot, state.pid_namespace) == (_boot(), _pid_namespace()):
            return _started(state.pid) != state.started
        if self._seen != (number, state.beat):
            self._seen, self._since = (number, state.beat), time.monotonic()
        return time.monotonic() - self._since > self._stale_s
