"""Which checks a protocol has time for: those that find most for what they cost. Pure.

What a check finds is estimated from how often it did, with one fault in a hundred as the guess before anything is known
(weighing as much as fifty results); what it costs, from how long it took, or else from what it says of itself. Checks
that are not quiet run at once, so after the first of a stage another one costs only what it takes longer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from piolet.core.nouns import Severity
from piolet.vet.history import Record
from piolet.vet.protocol import PlannedCheck

STEP_S = 2.0
"""What a stage costs before its first check: a step of Slurm, and Python on every node."""

_GUESS, _WEIGHT = 0.01, 50
_WORTH = {Severity.ERROR: 1.0, Severity.WARNING: 0.3, Severity.INFO: 0.1}


def chosen(
    checks: Sequence[PlannedCheck], budget_s: float, found: Mapping[str, Record]
) -> tuple[tuple[PlannedCheck, ...], tuple[PlannedCheck, ...]]:
    """Return the checks that `budget_s` seconds are enough for, and those that are left out, in their order."""
    kept: list[PlannedCheck] = []
    while fitting := [check for check in checks if check not in kept and seconds([*kept, check], found) <= budget_s]:
        before_s = seconds(kept, found)

        def worth(check: PlannedCheck, before_s: float = before_s) -> float:
            return benefit(check, found) / max(seconds([*kept, check], found) - before_s, 0.01)

        kept.append(max(fitting, key=worth))
    return tuple(each for each in checks if each in kept), tuple(each for each in checks if each not in kept)


def seconds(checks: Sequence[PlannedCheck], found: Mapping[str, Record]) -> float:
    """Return what checks take together: of each stage what runs at once, what runs alone, and the step."""
    total_s = 0.0
    for stage in {check.stage for check in checks}:
        mine = [check for check in checks if check.stage == stage]
        at_once = max((_cost_s(check, found) for check in mine if not check.quiet), default=0.0)
        total_s += STEP_S + at_once + sum(_cost_s(check, found) for check in mine if check.quiet)
    return total_s


def _cost_s(check: PlannedCheck, found: Mapping[str, Record]) -> float:
    record = found.get(check.type, Record())
    typical_s = check.typical_s if record.typical_s is None else record.typical_s
    return check.repeat.times * (typical_s + check.repeat.pause_s)


def benefit(check: PlannedCheck, found: Mapping[str, Record]) -> float:
    """Return how likely the check finds something on a node (0..1), times what that is worth."""
    record = found.get(check.type, Record())
    return _WORTH[check.severity] * (record.found + _GUESS * _WEIGHT) / (record.times + _WEIGHT)
