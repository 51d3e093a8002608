"""Rules: when evidence of one kind, in one window, often enough and independently, moves a node up the ladder.

Rules are data (piolet.fleet.policy reads them). Whether one holds is a pure function of a node's evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated

from annotated_types import Ge, Gt, MinLen

from piolet.core.nouns import Severity
from piolet.fleet.evidence import Evidence, Kind
from piolet.fleet.ledger import Mode, State

_HOUR_NS = 3_600_000_000_000


class Independent(StrEnum):
    """What must differ for two observations to count as two; without a job it is the hour that must."""

    NOTHING = "nothing"
    JOB = "job"
    HOUR = "hour"


class Per(StrEnum):
    """What observations are counted for."""

    NODE = "node"
    GPU = "gpu"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `code` holds patterns of a shell; `window_h` is in hours.

    It holds when at least `count` independent observations of the same node or GPU lie within the window. Evidence
    that more than `spread_nodes` nodes of one job share is the job's doing, and does not count (0: it always counts).
    `severity` says whose wish is granted first; what it led to lasts for `quiet_days` days without new evidence.
    """

    name: Annotated[str, MinLen(1)]
    summary: str
    source: Annotated[str, MinLen(1)]
    kind: Kind
    to: State
    code: Annotated[tuple[str, ...], MinLen(1)] = ("*",)
    above: float | None = None
    count: Annotated[int, Ge(1)] = 1
    window_h: Annotated[float, Gt(0)] = 24.0
    per: Per = Per.NODE
    independent: Independent = Independent.NOTHING
    spread_nodes: Annotated[int, Ge(0)] = 0
    mode: Mode = Mode.ACT
    severity: Severity = Severity.WARNING
    quiet_days: Annotated[float, Gt(0)] | None = None

    def matches(self, evidence: Evidence) -> bool:
        """Whether `evidence` counts for this rule at all."""
        return (
            evidence.failed
            and evidence.kind is self.kind
            and any(fnmatchcase(evidence.code, pattern) for pattern in self.code)
            and (self.above is None or (evidence.value is not None and evidence.value > self.above))
        )


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that holds: the observations that make it hold, one of each independent set, oldest first."""

    rule: Rule
    observations: tuple[Evidence, ...]

    @property
    def newest(self) -> Evidence:
        """The observation that made it hold."""
        return self.observations[-1]

    @property
    def reason(self) -> str:
        """The rule in words, with what it saw."""
        newest, number = self.newest, len(self.observations)
        on = f" on {newest.gpu}" if newest.gpu and self.rule.per is Per.GPU else ""
        times = f", {number} times in {self.rule.window_h:g} h" if self.rule.count > 1 else ""
        return f"{self.rule.summary}{on}{times} ({newest.group})"


@dataclass(frozen=True, slots=True)
class Observed:
    """A failure, `hours` after the first, that `spread` nodes of its job have. `trusted`: no user wrote it."""

    kind: Kind
    code: str
    gpu: str = ""
    job: str = ""
    value: float | None = None
    hours: Annotated[float, Ge(0)] = 0.0
    spread: Annotated[int, Ge(1)] = 1
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class Trial:
    """What must follow from `evidence`: the rules that fire, and the state that the node is in or asked into (`to`)."""

    name: Annotated[str, MinLen(1)]
    evidence: Annotated[tuple[Observed, ...], MinLen(1)]
    to: State
    fires: tuple[str, ...] = ()


def matching(rule: Rule, newest: Evidence, history: Iterable[Evidence], spread: int) -> Match | None:
    """Return the match if `rule` holds now that `newest` was seen; `history` is the node's evidence, or the GPU's.

    `spread` is the number of nodes of the same job with evidence of the same group.
    """
    if not rule.matches(newest) or (rule.spread_nodes and spread > rule.spread_nodes):
        return None
    since_ns = newest.time_ns - rule.window_h * 3600e9
    counted = [
        one
        for one in history
        if since_ns <= one.time_ns <= newest.time_ns
        and rule.matches(one)
        and (rule.per is Per.NODE or one.gpu == newest.gpu)
    ]
    distinct = _independent(rule.independent, sorted(counted, key=lambda one: one.time_ns))
    return Match(rule, tuple(distinct)) if len(distinct) >= rule.count else None


def _independent(what: Independent, found: Sequence[Evidence]) -> list[Evidence]:
    """Return one observation, the newest, of each set that `what` says depend on each other."""
    latest: dict[object, Evidence] = {}
    for one in found:
        key = {
            Independent.NOTHING: one.id,
            Independent.JOB: one.job or one.time_ns // _HOUR_NS,
            Independent.HOUR: one.time_ns // _HOUR_NS,
        }[what]
        latest.pop(key, None)
        latest[key] = one
    return list(latest.values())
