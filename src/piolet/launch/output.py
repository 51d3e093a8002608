"""A program's output on its way through: byte for byte and at once, with a look at each line as it passes.

The program itself is not touched: srun has taken its output already, and is only given a pipe to write it to.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from piolet.core.errors import NO_ROOM
from piolet.tools import training_output

Look = Callable[[bytes], None]

_LONGEST_LINE = 4096
_MOST_LOOKS_PER_S = 500


def forward(source: IO[Any], target: int, look: Look) -> None:
    """Pass `source` on to the descriptor `target` to its end, and show `look` every whole line that is not too long.

    If nobody reads `target` any more, `source` is closed, so that its writer finds out as it would without us. What a
    full disk does not take is lost, and the program goes on.
    """
    line = b""
    with source, suppress(OSError):
        while chunk := os.read(source.fileno(), 65536):
            _write(target, chunk)
            *lines, line = (line + chunk).split(b"\n")
            line = line[: _LONGEST_LINE + 1]
            for each in lines:
                if len(each) <= _LONGEST_LINE:
                    look(each)


class Steps:
    """A look that reports the steps that training frameworks print to the recorder at an address.

    It looks at lines that hold `loss`, at most 500 a second, so that it costs a program that prints wildly next to
    nothing. Sending never waits; without a recorder nothing happens.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._second = 0
        self._looks = 0

    def __call__(self, line: bytes) -> None:
        """Report the step in `line`, if there is one."""
        if b"loss" in line and self._in_time() and (progress := training_output.parse(line.decode("utf-8", "replace"))):
            step = {} if progress.step is None else {"step": progress.step}
            words = {"source": "output", **step, **progress.values}
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(0)
                sender.sendto(" ".join(f"{name}={value}" for name, value in words.items()).encode(), self._address)

    def _in_time(self) -> bool:
        second = int(time.monotonic())
        self._looks = self._looks + 1 if second == self._second else 1
        self._second = second
        return self._looks <= _MOST_LOOKS_PER_S


def _write(target: int, chunk: bytes) -> None:
    try:
        while chunk:
            chunk = chunk[os.write(target, chunk) :]
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
