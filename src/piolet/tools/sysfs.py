"""Reading the small files below /sys and /proc: one value each, absent where a kernel or a device does not have it."""

from __future__ import annotations

import re
from pathlib import Path

_NUMBER = re.compile(r"-?\d+")


def text(path: Path) -> str | None:
    """Return what a file holds, without white space around it; None if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def number(path: Path) -> int | None:
    """Return the whole number with which a file begins, such as that of ``250 W`` or ``7@1700000000.5``."""
    match = _NUMBER.match(text(path) or "")
    return int(match[0]) if match else None


def fields(content: str | None) -> dict[str, int]:
    """Return the numbers of a file with a name and a number a line, as cpu.stat has them."""
    found = {}
    for line in (content or "").splitlines():
        words = line.split()
        if len(words) == 2 and words[1].isdigit():  # noqa: PLR2004 - a name and its number
            found[words[0]] = int(words[1])
    return found


def entries(directory: Path) -> list[Path]:
    """Return what a directory holds, by name; nothing if it is not there."""
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []
