"""Telling on stderr how an import goes: one line that changes on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time

from piolet.env.claims import State

_TERMINAL_S, _PLAIN_S = 0.2, 10.0


class Teller:
    """Shows states of imports, its own or awaited ones, at a bearable rate."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = time.monotonic() - (_TERMINAL_S if self._terminal else _PLAIN_S - 1)

    def __call__(self, state: State) -> None:
        """Show `state` if it is time."""
        now = time.monotonic()
        if now - self._last < (_TERMINAL_S if self._terminal else _PLAIN_S):
            return
        self._last = now
        sys.stderr.write(f"\r\x1b[K{shown(state)}" if self._terminal else f"{shown(state)}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Clear the line."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")


def shown(state: State) -> str:
    """Return one line about an import."""
    of = f" {state.done_bytes / 1e6:.0f} of {state.total_bytes / 1e6:.0f} MB" if state.total_bytes else ""
    elsewhere = (state.host, state.pid) != (os.uname().nodename, os.getpid())
    by = f" (waiting for process {state.pid} on {state.host})" if elsewhere else ""
    return f"piolet: importing the image: {state.doing}{of}{by}"
