"""How often rules and checks were right, from what happened to the node next. Pure: entries in, rows out.

A firing, or a failed check, was right if the node showed within `WITHIN_DAYS` days by other means that it is bad: Slurm
lost it, a job was blamed on its hardware, the fleet's own vetting failed, or it went to RMA. It was wrong if vetting
passed before that, or the days went by and jobs ended well there. Else nobody knows yet, and it counts for neither.
Recall is the share of such proofs that the rule or check had warned of in the days before.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from piolet.core.nodeset import names
from piolet.core.nouns import Status
from piolet.fleet.evidence import LOST, REVALIDATION, Evidence, Kind
from piolet.fleet.ledger import Entry, Firing, State, Transition

WITHIN_DAYS = 7.0

_WITHIN_NS = round(WITHIN_DAYS * 86_400e9)
_Z90 = 1.645


class What(StrEnum):
    """What is measured: a rule that fired, or a check or another observation that failed."""

    RULE = "rule"
    CHECK = "check"


@dataclass(frozen=True, slots=True)
class Row:
    """How often `name` warned of a node, and how that turned out.

    `low` and `high` are the 90 % interval of precision (Wilson); precision and recall are None if nothing is known.
    """

    what: What
    name: str
    warned: int
    right: int
    wrong: int
    precision: float | None
    low: float
    high: float
    recall: float | None


@dataclass(slots=True)
class _Course:
    """What happened to a node: when it was proved bad (and by which observation), when it was proved good."""

    bad: list[tuple[int, str]] = field(default_factory=list)
    good: list[int] = field(default_factory=list)
    clean: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Warning:
    node: str
    time_ns: int
    because: frozenset[str]


@dataclass(slots=True)
class Record:
    """What entries tell of warnings and of how they turned out; it grows with the ledger."""

    courses: dict[str, _Course] = field(default_factory=dict)
    warnings: dict[tuple[What, str], list[_Warning]] = field(default_factory=dict)
    seen_ns: dict[str, int] = field(default_factory=dict)

    def take(self, entry: Entry) -> None:
        """Learn from `entry`, the next of the ledger."""
        _note(entry, self.courses)
        match entry.content:
            case Firing() as fired:
                at_ns = max((self.seen_ns.get(one, entry.time_ns) for one in fired.evidence), default=entry.time_ns)
                self._warn(What.RULE, fired.rule, _Warning(fired.node, at_ns, frozenset(fired.evidence)))
            case Evidence(failed=True) as seen if seen.node:
                self.seen_ns[seen.id] = seen.time_ns
                if seen.code not in {REVALIDATION, LOST}:
                    self._warn(What.CHECK, seen.group, _Warning(seen.node, seen.time_ns, frozenset({seen.id})))

    def _warn(self, what: What, name: str, warning: _Warning) -> None:
        self.warnings.setdefault((what, name), []).append(warning)

    def rows(self, now_ns: int) -> list[Row]:
        """Return how every rule that fired, and every check that failed, has done; the most frequent first."""
        for course in self.courses.values():
            course.bad.sort()
            course.good.sort()
            course.clean.sort()
        found = [_row(what, name, each, self.courses, now_ns) for (what, name), each in self.warnings.items()]
        return sorted(found, key=lambda row: (row.what, -row.warned, row.name))


def rows(entries: Iterable[Entry], now_ns: int) -> list[Row]:
    """Return how rules and checks have done, as `entries` tell."""
    record = Record()
    for entry in entries:
        record.take(entry)
    return record.rows(now_ns)


def _note(entry: Entry, courses: dict[str, _Course]) -> None:
    match entry.content:
        case Evidence(kind=Kind.JOB) as end:
            if end.failed and end.culprit and end.domain == "infrastructure":
                _of(courses, end.culprit).bad.append((end.time_ns, end.id))
            elif end.status is Status.PASS and end.source.trusted:
                for node in names(end.nodes):
                    _of(courses, node).clean.append(end.time_ns)
        case Evidence(code=code, node=node) as seen if code == REVALIDATION:
            if seen.failed:
                _of(courses, node).bad.append((seen.time_ns, seen.id))
            elif seen.status is Status.PASS:
                _of(courses, node).good.append(seen.time_ns)
        case Evidence(code=code, failed=True) as lost if code == LOST and lost.node:
            _of(courses, lost.node).bad.append((lost.time_ns, lost.id))
        case Transition(after=State.RMA) as moved:
            _of(courses, moved.node).bad.append((entry.time_ns, ""))


def _of(courses: dict[str, _Course], node: str) -> _Course:
    return courses.setdefault(node, _Course())


def _row(what: What, name: str, warnings: list[_Warning], courses: dict[str, _Course], now_ns: int) -> Row:
    outcomes = [_outcome(one, courses.get(one.node, _Course()), now_ns) for one in warnings]
    right, wrong = outcomes.count(True), outcomes.count(False)
    low, high = _wilson(right, right + wrong)
    return Row(
        what,
        name,
        len(warnings),
        right,
        wrong,
        right / (right + wrong) if right + wrong else None,
        low,
        high,
        _recall(warnings, courses),
    )


def _outcome(warning: _Warning, course: _Course, now_ns: int) -> bool | None:
    """Return whether a warning was right, or None while nobody knows."""
    until_ns = warning.time_ns + _WITHIN_NS
    bad = [at for at, by in course.bad if warning.time_ns < at <= until_ns and by not in warning.because]
    good = bisect_right(course.good, warning.time_ns)
    passed_ns = course.good[good] if good < len(course.good) else None
    if passed_ns is not None and passed_ns <= until_ns and not (bad and bad[0] < passed_ns):
        return False
    if bad:
        return True
    worked = bisect_right(course.clean, until_ns) > bisect_right(course.clean, warning.time_ns)
    return False if worked and now_ns > until_ns else None


def _recall(warnings: list[_Warning], courses: dict[str, _Course]) -> float | None:
    times: dict[str, list[int]] = {}
    for one in warnings:
        times.setdefault(one.node, []).append(one.time_ns)
    proofs = [(node, at) for node, course in courses.items() for at, _ in course.bad]
    if not proofs:
        return None
    return sum(_warned(sorted(times.get(node, ())), at) for node, at in proofs) / len(proofs)


def _warned(times: list[int], at_ns: int) -> bool:
    """Whether there was a warning in the days before `at_ns`."""
    return bisect_left(times, at_ns) > bisect_left(times, at_ns - _WITHIN_NS)


def _wilson(hits: int, whole: int) -> tuple[float, float]:
    if not whole:
        return 0.0, 1.0
    share, square = hits / whole, _Z90**2
    middle = (share + square / (2 * whole)) / (1 + square / whole)
    half = _Z90 * math.sqrt(share * (1 - share) / whole + square / (4 * whole**2)) / (1 + square / whole)
    return max(0.0, middle - half), min(1.0, middle + half)
