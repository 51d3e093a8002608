"""What the user is told while a run goes on: sentences on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from piolet.core.errors import PioletError


def say(text: str) -> None:
    """Tell the user what happens, on stderr; a run goes on where that cannot be written."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"piolet: {text}\n")
        sys.stderr.flush()


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Say on stderr that `what` could not be written, instead of raising."""
    try:
        yield
    except PioletError as error:
        say(f"{what} could not be written: {error}")
