"""Seeing in what a program prints that it will come to nothing, so that its nodes are not held for that. Pure.

nan: the loss was not a number for several steps in a row; one alone may be a step that mixed precision skips.
stall: steps were printed, and then none for far longer than any took before, checkpoints among them.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from piolet.tools import training_output

SIGNS = ("nan", "stall")


@dataclass(frozen=True, slots=True)
class Sign:
    """Why a program is ended early: the name of the sign, what was seen, and the node that it points at, if one."""

    name: str
    what: str
    node: str = ""


NAN_STEPS = 3
STALL_LEAST_S = 600.0
"""Ten minutes without progress are what ByteRobust calls a hang (the network was silent for so long)."""

STALL_FACTOR = 10.0
STALL_STEPS = 5
"""So many steps are seen before a stall can be told: the first of them take longer."""


@dataclass(slots=True)
class Doom:
    """Looks at every line, in whatever thread; `reason` says why the program should end, once it should."""

    signs: Collection[str]
    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _bad_steps: int = 0
    _steps: int = 0
    _last_s: float = 0.0
    _longest_s: float = 0.0

    def look(self, line: bytes) -> None:
        """Count the step in `line`, if there is one."""
        progress = training_output.parse(line.decode("utf-8", "replace")) if b"loss" in line else None
        if progress is None:
            return
        with self._lock:
            self._count(progress.values.get("loss", 0.0))

    def _count(self, loss: float) -> None:
        now_s = self.clock()
        if self._steps:
            self._longest_s = max(self._longest_s, now_s - self._last_s)
        self._steps, self._last_s = self._steps + 1, now_s
        self._bad_steps = 0 if math.isfinite(loss) else self._bad_steps + 1

    def reason(self) -> Sign | None:
        """Return the sign that was seen; None as long as there is hope."""
        with self._lock:
            if "nan" in self.signs and self._bad_steps >= NAN_STEPS:
                return Sign("nan", f"the loss was not a number for {self._bad_steps} steps in a row")
            silent_s = self.clock() - self._last_s
            patience_s = max(STALL_LEAST_S, STALL_FACTOR * self._longest_s)
            if "stall" in self.signs and self._steps >= STALL_STEPS and silent_s > patience_s:
                usual = f"after {self._steps} within {self._longest_s:.0f} s each"
                return Sign("stall", f"no step for {silent_s:.0f} s, {usual}")
        return None
