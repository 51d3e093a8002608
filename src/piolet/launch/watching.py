"""Seeing in the logbook, while a program runs, that it will come to nothing: an Xid, a hang, no sign of life.

The recorders write what they see every few seconds, errors at once; what is new of it is read here. What cannot be read
ends no program.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from piolet.core.errors import PioletError
from piolet.core.text import plural
from piolet.launch.doom import Sign
from piolet.launch.telling import say
from piolet.logbook.layout import Logbook
from piolet.logbook.tail import Tail
from piolet.vet.checks.gpu_xid import FATAL

SIGNS = ("xid", "hang")

LOOK_S = 5.0

BEFORE_S = 600.0
"""An Xid explains a failure that comes within ten minutes (as in Meta's study of failures at scale)."""

_TENSOR, _DRAM, _LINK_BYTES_PER_S, _BUSY = 0.03, 0.05, 100e6, 0.9
"""Above the first three a GPU works; from the last on a kernel is there all the time."""

_EVENTS = ("time_ns", "node", "gpu", "kind", "code", "message")
_SAMPLES = (
    *("time_ns", "node", "gpu", "gpu_util_ratio", "tensor_active_ratio", "dram_active_ratio"),
    *("nvlink_tx_bytes_per_s", "nvlink_rx_bytes_per_s"),
)


@dataclass(slots=True)
class _Gpu:
    """When this GPU was seen last, since when it does no work (None: it works), and whether a kernel is there."""

    latest_ns: int = 0
    quiet_since_ns: int | None = None
    busy: bool = False

    @property
    def quiet_s(self) -> float:
        return 0.0 if self.quiet_since_ns is None else (self.latest_ns - self.quiet_since_ns) / 1e9


@dataclass(slots=True)
class Hang:
    """Folds the samples of all GPUs; once they have worked, tells for how long none of them has.

    That is a hang if kernels wait in most of them: what a collective looks like whose last rank does not come. In a
    deadlock GPU_UTIL stays at 100 %, while tensor, memory and links fall to 0 (DCGM; ByteRobust looks for the same).
    A GPU that does not tell its activity counts as working.
    """

    worked: bool = False
    _gpus: dict[tuple[str, int], _Gpu] = field(default_factory=dict)

    def see(self, samples: Iterable[tuple[Any, ...]]) -> None:
        """Take samples, each with the columns of `_SAMPLES`, in the order of time."""
        for time_ns, node, index, util, tensor, dram, sent, received in samples:
            gpu = self._gpus.setdefault((node, index), _Gpu())
            told = tensor is not None and dram is not None
            moved = max(sent or 0.0, received or 0.0)
            works = not told or tensor > _TENSOR or dram > _DRAM or moved > _LINK_BYTES_PER_S
            self.worked |= told and works
            gpu.latest_ns, gpu.busy = time_ns, (util or 0.0) >= _BUSY
            gpu.quiet_since_ns = None if works else gpu.quiet_since_ns or time_ns

    @property
    def quiet_s(self) -> float:
        """Seconds for which no GPU has done any work, while kernels wait in most; 0 if that is not so."""
        waiting = sum(gpu.busy for gpu in self._gpus.values())
        if not self.worked or 2 * waiting <= len(self._gpus):
            return 0.0
        return min(gpu.quiet_s for gpu in self._gpus.values())

    def idle(self) -> list[tuple[str, int]]:
        """Return the GPUs in which no kernel waits: those of the ranks that the others wait for."""
        return sorted(place for place, gpu in self._gpus.items() if not gpu.busy)

    def sign(self) -> Sign:
        """Return what is seen; the node is named if the GPUs without a kernel are all there."""
        idle = self.idle()
        nodes = sorted({node for node, _ in idle})
        but = ", all wait but " + ", ".join(f"{node}:{gpu}" for node, gpu in idle[:8]) if idle else ", all wait"
        what = f"{plural(len(self._gpus), 'GPU')} have done no work for {self.quiet_s:.0f} s{but}"
        return Sign("hang", what, nodes[0] if len(nodes) == 1 else "")


@dataclass(slots=True)
class Watch:
    """Looks at `logbook` every few seconds; `reason` gives the sign on which the program should end, once there is one.

    A hang must last `hang_s`; then `suspected` is called once, which may look closer, and after `grace_s` more it is a
    sign. `heartbeat_s` is how long the program may be without a step or a call of `piolet.log` or `piolet.phase`.
    """

    logbook: Logbook
    signs: Collection[str]
    hang_s: float
    grace_s: float
    suspected: Callable[[], None]
    heartbeat_s: float | None = None
    clock: Callable[[], float] = time.monotonic
    hang: Hang = field(default_factory=Hang)
    _looked_s: float = field(init=False)
    _alive_s: float = field(init=False)
    _suspicious: bool = False
    _blind: bool = False
    _tails: dict[str, Tail] = field(init=False)

    def __post_init__(self) -> None:
        self._looked_s = self._alive_s = self.clock()
        columns = {"events": _EVENTS, "gpu": _SAMPLES, "user": ("time_ns",)}
        self._tails = {family: Tail(self.logbook, family, names) for family, names in columns.items()}

    def reason(self) -> Sign | None:
        """Look, if it is time to, and return the sign that is seen."""
        if self.clock() - self._looked_s < min(LOOK_S, self.hang_s):
            return None
        self._looked_s = self.clock()
        try:
            return self._look()
        except (OSError, PioletError) as error:
            if not self._blind:
                say(f"the logbook cannot be watched just now: {error}")
            self._blind = True
            return None

    def _look(self) -> Sign | None:
        events = self._tails["events"].new()
        for blind in self._unseen(events):
            say(blind)
        found = fatal_xid(events) if "xid" in self.signs else None
        return found or self._hangs() or self._silent(events)

    def _unseen(self, events: Iterable[tuple[Any, ...]]) -> Iterable[str]:
        """Yield what to say of nodes whose kernel log is not read, where Xids are asked for."""
        if "xid" in self.signs:
            for _, node, _, kind, code, message in events:
                if kind == "collector" and code == "unavailable" and message.startswith("kernel_log"):
                    yield f"Xids of {node} are not seen: {message}"

    def _hangs(self) -> Sign | None:
        if "hang" not in self.signs:
            return None
        self.hang.see(self._tails["gpu"].new())
        if self.hang.quiet_s < self.hang_s:
            self._suspicious = False
            return None
        sign = self.hang.sign()
        if not self._suspicious:
            self._suspicious = True
            say(f"a hang is suspected: {sign.what}; it ends the program in {self.grace_s:g} s unless work goes on")
            self.suspected()
        return sign if self.hang.quiet_s >= self.hang_s + self.grace_s else None

    def _silent(self, events: Iterable[tuple[Any, ...]]) -> Sign | None:
        if self.heartbeat_s is None:
            return None
        if self._tails["user"].new() or any(kind == "phase" for _, _, _, kind, _, _ in events):
            self._alive_s = self.clock()
        silent_s = self.clock() - self._alive_s
        if silent_s <= self.heartbeat_s:
            return None
        return Sign("heartbeat", f"no step and no piolet.log or piolet.phase for {silent_s:.0f} s")


def fatal_xid(events: Iterable[tuple[Any, ...]]) -> Sign | None:
    """Return the first Xid of `events`, rows of `_EVENTS`, after which a GPU is not to be used."""
    for _, node, gpu, kind, code, _ in events:
        if kind == "xid" and code.isdigit() and int(code) in FATAL:
            place = node if gpu is None else f"{node}:{gpu}"
            return Sign("xid", f"Xid {code} ({FATAL[int(code)]}) on {place}", node)
    return None


def xid_before(logbook: Logbook, ended_ns: int) -> Sign | None:
    """Return the fatal Xid that may explain why a program ended at `ended_ns`; None if there is none to be read."""
    try:
        events = Tail(logbook, "events", _EVENTS).new()
    except OSError as error:
        say(f"the events of the logbook cannot be read: {error}")
        return None
    return fatal_xid(each for each in events if ended_ns - each[0] <= BEFORE_S * 1e9)
