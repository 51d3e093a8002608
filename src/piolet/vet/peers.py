"""Nodes against each other, and values against the criteria of a protocol: judged where all answers are together. Pure.

A check that is `uniform` passes on a node with what it found there as its value; here the values are compared. What
most nodes have is taken for right. Where no value is that of more than half of them, nobody can tell who is wrong,
and all are unknown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from piolet.core.nouns import CheckResult, Status
from piolet.vet.protocol import Comparison, Criteria, Protocol, Usual

SEPARATOR = "; "
"""Stands between the items of a value, so that only those that differ need be named."""

_NORMAL = 1.4826
"""Makes a median absolute deviation comparable with a standard deviation, for values that scatter normally."""

_REMEDY = "tell the operators: this node has missed an update, or is ahead of one"
_TIED = "vet more nodes at once, so that most can outvote the others; or leave this check out"


def compared(
    results: Sequence[CheckResult], protocol: Protocol, models: Mapping[str, str] | None = None
) -> list[CheckResult]:
    """Return the results that passed judged once more: those of uniform checks among each other, values by criteria.

    `models` are those of the nodes' GPUs; without one a node is compared with nodes without GPUs.
    """
    values = {
        check.name: Counter(str(each.value) for each in _passed(results, check.name))
        for check in protocol.checks
        if check.uniform
    }
    found = [
        _among(result, values[result.check]) if result.check in values and result.status is Status.PASS else result
        for result in results
    ]
    criteria = {check.name: check.criteria for check in protocol.checks if check.criteria}
    numbers = {name: [_value(each) for each in _passed(found, name)] for name in criteria}
    return [
        measured(
            each,
            criteria[each.check],
            [number for number in numbers[each.check] if number is not None],
            (models or {}).get(each.node, ""),
        )
        if each.check in criteria and each.status is Status.PASS
        else each
        for each in found
    ]


def measured(result: CheckResult, criteria: Criteria, peers: Sequence[float], model: str = "") -> CheckResult:
    """Judge the value of a check that passed; `peers` are the values of all nodes that passed, its own among them."""
    value = _value(result)
    if value is None:
        remedy = "leave `criteria` out, or measure what they ask for"
        return replace(result, status=Status.UNKNOWN, reason=f"no value to compare: {result.reason}", remedy=remedy)
    least, most = criteria.at_least, criteria.at_most
    if least is not None and value < least:
        return _worse(result, f"less than {least:g}", least)
    if most is not None and value > most:
        return _worse(result, f"more than {most:g}", most)
    if criteria.peers:
        result = _against(result, criteria.better, criteria.peers, Usual.of(peers), "nodes")
    if criteria.history and result.status is Status.PASS:
        usual = next((each for each in criteria.usual if each.model == model), Usual(model, 0, 0.0, 0.0))
        result = _against(result, criteria.better, criteria.history, usual, "earlier values")
    return result


def _against(result: CheckResult, better: str, allowed: Comparison, usual: Usual, whose: str) -> CheckResult:
    """Fail a value that is far worse than is usual, both for how values scatter and for their size."""
    value = _value(result) or 0.0
    if usual.count < allowed.least:
        few = f"{result.reason} (too few {whose} to compare: {usual.count} of {allowed.least})"
        return replace(result, reason=few)
    apart = max(allowed.mad * _NORMAL * usual.deviation, allowed.margin * abs(usual.median))
    limit = usual.median - apart if better == "higher" else usual.median + apart
    if (value < limit) if better == "higher" else (value > limit):
        return _worse(result, f"the median of {usual.count} {whose} is {usual.median:.4g}", round(limit, 4))
    return result


def _worse(result: CheckResult, why: str, threshold: float) -> CheckResult:
    reason = f"{_value(result):.4g} {result.unit}".strip() + f": {why} ({result.reason})"
    remedy = "look at what else runs on the node; if nothing does, tell the operators"
    return replace(result, status=Status.FAIL, reason=reason, threshold=threshold, remedy=remedy)


def _value(result: CheckResult) -> float | None:
    return float(result.value) if isinstance(result.value, int | float) and math.isfinite(result.value) else None


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
