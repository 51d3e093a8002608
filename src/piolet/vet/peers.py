"""Comparing nodes with each other: what only all answers together can tell. Pure.

A check that is `uniform` passes on a node with what it found there as its value; here the values are compared. What
most nodes have is taken for right. Where no value is that of more than half of them, nobody can tell who is wrong,
and all are unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from piolet.core.nouns import CheckResult, Status
from piolet.vet.protocol import Protocol

SEPARATOR = "; "
"""Stands between the items of a value, so that only those that differ need be named."""

_REMEDY = "tell the operators: this node has missed an update, or is ahead of one"
_TIED = "vet more nodes at once, so that most can outvote the others; or leave this check out"


def compared(results: Sequence[CheckResult], protocol: Protocol) -> list[CheckResult]:
    """Return the results with those of uniform checks that passed judged once more, among each other."""
    values = {
        check.name: Counter(str(each.value) for each in _passed(results, check.name))
        for check in protocol.checks
        if check.uniform
    }
    return [
        _among(result, values[result.check]) if result.check in values and result.status is Status.PASS else result
        for result in results
    ]


def _passed(results: Iterable[CheckResult], check: str) -> list[CheckResult]:
    return [result for result in results if result.check == check and result.status is Status.PASS]


def _among(result: CheckResult, values: Counter[str]) -> CheckResult:
    [(usual, count)] = values.most_common(1)
    if 2 * count <= values.total():
        reason = f"the nodes differ, and not more than {count} of {values.total()} agree"
        return replace(result, status=Status.UNKNOWN, reason=reason, remedy=_TIED)
    if str(result.value) == usual:
        return result
    here, there = _differing(str(result.value), usual), _differing(usual, str(result.value))
    reason = f"{here} here, {there} on {count} of {values.total()} nodes"
    return replace(result, status=Status.FAIL, reason=reason, threshold=usual, remedy=_REMEDY)


def _differing(value: str, other: str) -> str:
    """Return the items of `value` that `other` has not; all of it if it only lacks some."""
    theirs = other.split(SEPARATOR)
    return SEPARATOR.join(item for item in value.split(SEPARATOR) if item not in theirs) or value
