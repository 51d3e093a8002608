"""What a scan finds: risks, each of a rule and at a place, and what was looked at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """What a risk means for the verdict. UNKNOWN is something that could not be checked; it is never read as clean."""

    FAIL = "fail"
    UNKNOWN = "unknown"
    WARN = "warn"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of risk: its id, its level where no policy says otherwise, what it is, and what to do about it."""

    id: str
    level: Level
    title: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a risk is: a file, its line (from 1), and what of the file (a member of an archive, a tensor)."""

    path: str
    line: int | None = None
    inside: str = ""

    def __str__(self) -> str:
        line = f":{self.line}" if self.line else ""
        return f"{self.path}{line}" + (f" [{self.inside}]" if self.inside else "")


@dataclass(frozen=True, slots=True, order=True)
class Risk:
    """One risk. `reason` is what was seen there, never the secret itself."""

    path: str
    line: int
    rule: str
    inside: str
    reason: str

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.path, self.line or None, self.inside)


def risk(rule: Rule, place: Place, reason: str) -> Risk:
    """Return a risk of `rule` at `place`."""
    return Risk(place.path, place.line or 0, rule.id, place.inside, reason)


@dataclass(frozen=True, slots=True)
class Scan:
    """What was scanned: how many files (or what `noun` says) and bytes, and the risks found."""

    kind: str
    files: int
    size_bytes: int
    risks: tuple[Risk, ...]
    noun: str = "file"


def joined(kind: str, scans: Iterable[Scan]) -> Scan:
    """Return several scans as one, with the risks in the order of their places."""
    every = list(scans)
    risks = {each for scan in every for each in scan.risks}
    return Scan(kind, sum(scan.files for scan in every), sum(scan.size_bytes for scan in every), tuple(sorted(risks)))
