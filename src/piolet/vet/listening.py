"""Listening to a vetting step while it runs, so that one node that never begins does not hold up all others.

A node says at once that it begins, and answers when its checks are done. Once most nodes have begun, those that have
not get `BEGIN_FACTOR` times as long as the others took, and `BEGIN_LEAST_S` at least; then they are given up, as soon
as all that have begun have answered. What nodes say is kept as it is: judging it is piolet.vet.answers' part.
"""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

from piolet.core.run import Process
from piolet.vet.answers import MARKER
from piolet.vet.protocol import BEGUN

BEGIN_FACTOR = 4.0
BEGIN_LEAST_S = 10.0
"""A node that is three times as slow as the others still begins in time; Slurm gives up a dead one after as long."""

_LOOK_S = 0.1


@dataclass(slots=True)
class Heard:
    """What a step has said until now; `gave_up` if some of it was not waited for."""

    stdout: str = ""
    stderr: str = ""
    gave_up: bool = False


@dataclass(slots=True)
class _Counts:
    """How many nodes have begun and answered, and when most of them had begun."""

    wanted: int
    started_s: float
    begun: int = 0
    answered: int = 0
    most_begun_s: float | None = field(default=None)

    def hear(self, text: str, now_s: float) -> None:
        """Count what is in all that was said."""
        self.begun, self.answered = text.count(BEGUN), text.count(MARKER)
        if self.most_begun_s is None and 2 * self.begun > self.wanted:
            self.most_begun_s = now_s - self.started_s

    def give_up(self, now_s: float) -> bool:
        """Tell whether only nodes are missing that have not begun, and should have by now."""
        if self.most_begun_s is None or self.answered < self.begun:
            return False
        return now_s - self.started_s > max(BEGIN_LEAST_S, BEGIN_FACTOR * self.most_begun_s)


def listen(step: Process, wanted: int, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> Heard:
    """Listen until the step's end, `timeout_s` seconds, or until nobody who has begun is missing."""
    said: dict[Any, bytes] = {step.stdout: b"", step.stderr: b""}
    counts, heard = _Counts(wanted, clock()), Heard()
    with selectors.DefaultSelector() as selector:
        for stream in said:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() and not heard.gave_up:
            for key, _ in selector.select(_LOOK_S):
                said[key.fileobj] += _heard(selector, key.fileobj)
            counts.hear(said[step.stdout].decode("utf-8", "surrogateescape"), clock())
            heard.gave_up = clock() - counts.started_s > timeout_s or counts.give_up(clock())
    heard.stdout, heard.stderr = (text.decode("utf-8", "surrogateescape") for text in said.values())
    return heard


def _heard(selector: selectors.BaseSelector, stream: IO[Any] | Any) -> bytes:  # noqa: ANN401 - a selector's key
    part = os.read(stream.fileno(), 1 << 16)
    if not part:
        selector.unregister(stream)
    return part
