"""What is cause and what is effect: merges suspicions of one cause, and puts effects under what explains them.

A suspicion explains another if its rule may cause that one's, it began no later (up to TOLERANCE_NS), and the other is
about the whole job or about one of the same nodes. Causes are ranked: errors first, then what slows the job, nearer to
the root first, surer first, earlier first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from piolet.core.nodeset import NodeSet
from piolet.core.nouns import Severity
from piolet.logbook.records import Diagnosis
from piolet.watch.diagnosis.rule import Level, Rule, Suspicion

TOLERANCE_NS = 30_000_000_000
_GRAVITY = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}
_MOST_EVIDENCE = 6


@dataclass(frozen=True, slots=True)
class Suspect:
    """A suspicion with its rule."""

    rule: Rule
    what: Suspicion

    @property
    def where(self) -> str:
        """The GPU, the nodes, or the job."""
        if not self.what.nodes:
            return "job"
        return str(NodeSet(self.what.nodes)) + ("" if self.what.gpu is None else f":{self.what.gpu}")


def conclude(suspects: Sequence[Suspect]) -> tuple[Diagnosis, ...]:
    """Return the causes, the likeliest first, each with the effects that it explains."""
    merged = [each for _, same in groupby(sorted(suspects, key=_kind), key=_kind) for each in _merged(list(same))]
    ranked = sorted(merged, key=lambda suspect: _rank(suspect, _explained(suspect, merged)))
    effects: dict[int, list[Suspect]] = {}
    for suspect in ranked:
        cause = next((other for other in ranked if _causes(other, suspect)), None)
        if cause is not None:
            effects.setdefault(id(cause), []).append(suspect)
    explained = {id(effect) for each in effects.values() for effect in each}
    return tuple(_diagnosis(each, _all_effects(each, effects)) for each in ranked if id(each) not in explained)


def _kind(suspect: Suspect) -> tuple[str, tuple[str, ...]]:
    return suspect.rule.name, suspect.what.nodes


def _merged(same: list[Suspect]) -> list[Suspect]:
    """Return one suspect a GPU; several GPUs of a node with one trouble are the node's."""
    same.sort(key=lambda suspect: (suspect.what.gpu is None, suspect.what.gpu or 0, suspect.what.from_ns))
    each = [_joined(list(group)) for _, group in groupby(same, key=lambda suspect: suspect.what.gpu)]
    if len(each) == 1 or each[0].rule.name == "xid":
        return each
    node = _joined(each)
    reason = f"{len(each)} GPUs of the node: {node.what.reason}"
    return [replace(node, what=replace(node.what, gpu=None, reason=reason))]


def _joined(same: Sequence[Suspect]) -> Suspect:
    surest = max(same, key=lambda suspect: suspect.what.confidence)
    evidence = tuple(fact for suspect in same for fact in suspect.what.evidence)[:_MOST_EVIDENCE]
    span = min(suspect.what.from_ns for suspect in same), max(suspect.what.to_ns for suspect in same)
    return replace(surest, what=replace(surest.what, from_ns=span[0], to_ns=span[1], evidence=evidence))


def _causes(cause: Suspect, effect: Suspect) -> bool:
    if cause is effect or effect.rule.name not in cause.rule.explains:
        return False
    early = cause.what.from_ns <= effect.what.from_ns + TOLERANCE_NS or _covers_start(cause, effect)
    near = not effect.what.nodes or not cause.what.nodes or bool(set(cause.what.nodes) & set(effect.what.nodes))
    return early and near and nearer_to_the_root(cause.rule, effect.rule)


def nearer_to_the_root(cause: Rule, effect: Rule) -> bool:
    """Return whether a rule can be the cause of another; of two of one level that explain each other neither is."""
    return cause.level < effect.level or (cause.level == effect.level and cause.name not in effect.explains)


def _covers_start(cause: Suspect, effect: Suspect) -> bool:
    """A finding about the whole steady state has no beginning of its own; whatever lies in it may explain it."""
    return effect.rule.level is Level.WORKLOAD and cause.what.from_ns < effect.what.to_ns


def _explained(suspect: Suspect, others: Sequence[Suspect]) -> int:
    return sum(_causes(suspect, other) for other in others)


def _rank(suspect: Suspect, effects: int) -> tuple[object, ...]:
    what = suspect.what
    return _GRAVITY[what.severity], suspect.rule.level, -effects, -what.confidence, what.from_ns, suspect.where


def _all_effects(cause: Suspect, effects: Mapping[int, list[Suspect]]) -> list[Suspect]:
    direct = effects.get(id(cause), [])
    return direct + [deeper for each in direct for deeper in _all_effects(each, effects)]


def _diagnosis(suspect: Suspect, effects: Sequence[Suspect]) -> Diagnosis:
    rule, what = suspect.rule, suspect.what
    support = 1 - (1 - what.confidence) * 0.8 ** len(effects)
    return Diagnosis(
        rule=rule.name,
        title=rule.title,
        severity=what.severity,
        confidence=round(min(support, 0.99), 2),
        from_ns=what.from_ns,
        to_ns=what.to_ns,
        reason=what.reason,
        next_step=what.next_step or rule.next_step,
        refuted_by=rule.refuted_by,
        nodes=what.nodes,
        gpu=what.gpu,
        rank=what.rank,
        evidence=what.evidence,
        effects=tuple(f"{effect.where}: {effect.what.reason} ({effect.rule.name})" for effect in effects),
    )
