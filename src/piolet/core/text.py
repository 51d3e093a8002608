"""Small helpers for messages that people read."""

from __future__ import annotations

import difflib
import re
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


_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d*)?)\s*(?P<unit>[kKMGTPE]?i?B?)", re.ASCII)


def size(amount: float) -> str:
    """Return bytes in decimal units, as disks and quotas count: ``812 B``, ``1.5 GB``, ``64 TB``."""
    for power, unit in enumerate(_UNITS):
        scaled = amount / 1000**power
        if scaled < 999.5 or unit == _UNITS[-1]:  # noqa: PLR2004 - what rounds to 1000 is one of the next unit
            break
    return f"{scaled:.1f} {unit}" if power and scaled < 9.95 else f"{scaled:.0f} {unit}"  # noqa: PLR2004 - two digits


def parse_size(text: str) -> int:
    """Return the bytes of ``64MiB``, ``1.5 TB``, ``10G`` (decimal, as disks count) or ``4096``; else a ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"must be a size such as 64MiB or 1.5TB, not {text!r}")
    unit = match["unit"]
    power = "BKMGTPE".index((unit or "B")[0].upper())
    return int(float(match["number"]) * (1024 if "i" in unit else 1000) ** power)


def count(number: float) -> str:
    """Return a whole number with its thousands apart: ``1 234 567``."""
    return f"{number:,.0f}".replace(",", "\N{NO-BREAK SPACE}")
