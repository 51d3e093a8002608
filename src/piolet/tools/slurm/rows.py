"""Rows of fields that free text cannot break: fields end at a control character, the free text stands last.

Slurm prints job names and reasons as they are, with blanks, newlines, "|" and bytes that are not UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from piolet.core.errors import ParseError

SEPARATOR = "\x1f"
"""ASCII's own unit separator."""


def template(fields: Sequence[str]) -> str:
    """Return the format for squeue's and sinfo's -o."""
    return SEPARATOR.join(fields)


def split(text: str, count: int, source: str, *, first: str = ".+") -> list[list[str]]:
    """Return the rows of `text`, `count` fields each; the last field may span lines and hold separators.

    A line with too few separators, or whose first field is not of the form `first`, continues the free text of
    the row before. So a name that imitates a whole row could forge one; callers that act on a job ask for that
    job alone and take its first row.

    Raises:
        ParseError: the very first line is no row.
    """
    rows: list[list[str]] = []
    for line in text.removesuffix("\n").split("\n") if text else ():
        fields = line.split(SEPARATOR, count - 1)
        if len(fields) == count and re.fullmatch(first, fields[0]):
            rows.append(fields)
        elif rows:
            rows[-1][-1] += f"\n{line}"
        elif line:
            raise ParseError(f"not a row of {count} fields", source=source, text=line)
    return rows


def number(text: str, source: str) -> int:
    """Return a whole number; Slurm marks with "+" that nodes differ and this is the least.

    Raises:
        ParseError: it is none.
    """
    digits = text.strip().removesuffix("+")
    if not digits.isdecimal():
        raise ParseError("not a number", source=source, text=text)
    return int(digits)
