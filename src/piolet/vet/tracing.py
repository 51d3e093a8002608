"""After a stage: which node is to blame for a collective that all its nodes have failed.

The measuring is a step a round, in which each node reduces with its group; the reasoning is piolet.vet.localise's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from piolet.core.nodeset import NodeSet
from piolet.core.nouns import CheckResult, Severity, Status
from piolet.vet.answers import Verdict, verdict_of
from piolet.vet.localise import Located, locate
from piolet.vet.protocol import PlannedCheck, Protocol

Ask = Callable[[NodeSet, Protocol], Verdict]

_REMEDY = "tell the operators: this node slows down or breaks what others do well without it"
_UNTOLD = "vet more nodes at once, or again; the threshold may also be one that no node reaches"


def traced(verdict: Verdict, stage: Protocol, ask: Ask) -> Verdict:
    """Return the verdict of a stage with each failed collective traced to nodes, as far as that can be told."""
    for check in stage.checks:
        mine = [each for each in verdict.results if each.check == check.name]
        if check.collective and check.severity is Severity.ERROR and len(mine) > 1 and any(map(_measured_bad, mine)):
            others = tuple(each for each in verdict.results if each.check != check.name)
            results = _traced(mine, check, replace(stage, checks=(check,)), ask)
            verdict = verdict_of(verdict.nodes, others + results, verdict.inventory)
    return verdict


def _measured_bad(result: CheckResult) -> bool:
    """Tell whether it was measured and is bad; what could not be measured at all is no better in groups."""
    return result.status is not Status.PASS and result.value is not None


def _traced(
    results: Sequence[CheckResult], check: PlannedCheck, protocol: Protocol, ask: Ask
) -> tuple[CheckResult, ...]:
    latest: dict[str, CheckResult] = {}

    def measure(groups: Sequence[NodeSet]) -> list[bool]:
        asked = NodeSet(node for group in groups for node in group)
        found = ask(asked, replace(protocol, checks=(_apart(check, groups),)))
        latest.update({each.node: each for each in found.results if each.check == check.name})
        return [group <= found.ready for group in groups]

    located = locate(NodeSet(each.node for each in results), measure)
    return tuple(_told(each, located, latest) for each in results)


def _apart(check: PlannedCheck, groups: Sequence[NodeSet]) -> PlannedCheck:
    """Return the check for groups of nodes; peers are of their own group, and are not compared with those of others."""
    criteria = check.criteria and replace(check.criteria, peers=None, history=None)
    parameters = {**check.parameters, "groups": tuple(map(str, groups))}
    return replace(check, parameters=parameters, criteria=criteria)


def _told(result: CheckResult, located: Located, latest: dict[str, CheckResult]) -> CheckResult:
    """Return what is now known of a node: found wrong, good with the others, or neither."""
    if result.node in located.good:
        return latest[result.node]
    named = next((each for each in located.named if each.node == result.node), None)
    if named is None:
        reason = f"{result.reason}; whose fault cannot be told: {located.why}"
        return replace(result, status=Status.UNKNOWN, reason=reason, remedy=_UNTOLD)
    trace = f"bad with {named.bad} of {named.pairings} good nodes (confidence {named.confidence:.2f})"
    return replace(result, status=Status.FAIL, reason=f"{result.reason}; traced to this node: {trace}", remedy=_REMEDY)
