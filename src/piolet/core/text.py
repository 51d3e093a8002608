"""Small helpers for messages that people read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint such as ``did you mean "mounts"?``, or the known words if none is near."""
    words = sorted(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known here: {', '.join(words)}" if words else "nothing is known here"


def plural(count: int, noun: str) -> str:
    """Return ``1 node``, ``4 nodes``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
