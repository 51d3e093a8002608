"""Blame: which nodes make jobs fail, as a rate with an interval, and how sure it is that a node is a lemon. Pure.

A failed job is one failure, shared out over its nodes by what points at them: the node that Slurm lost, a fatal error
of a GPU around the end, the first rank that failed. What users did to themselves counts for nobody, and what may be
either counts by half. Where nothing points at a node, those share more that fail elsewhere too
(expectation-maximisation on additive hazards). A node's failures are then a Poisson process whose rate has a gamma
prior fitted to the fleet, so a node with few jobs is near its peers' rate with a wide interval.

Sources: signals and the window of 28 days as in Kokolis et al., Revisiting Reliability in Large-Scale Machine Learning
Research Clusters (2024); quantiles of the gamma distribution by Wilson and Hilferty (1931).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, median

from piolet.core.nodeset import names
from piolet.fleet.evidence import LOST, Evidence, Kind, Source, made_id

DAYS = 28.0
"""How far back blame looks."""

FACTOR = 4.0
"""A lemon fails so many times as often as the median node."""

_DAY_S = 86_400.0
_BEFORE_NS, _AFTER_NS = 600 * 10**9, 300 * 10**9
"""A cause counts that was seen within 10 min before or 5 min after the end of a job."""

_OWN_DOING = frozenset({"CANCELLED", "DEADLINE", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"})
_HARDWARE = frozenset({"BOOT_FAIL", "NODE_FAIL"})
_FATAL_XIDS = frozenset({"48", "62", "64", "74", "79", "95", "119", "120"})
_ROUNDS = 25
_EITHER = 0.5
_NORMAL = NormalDist()

_FIRST_RANK, _SIGNAL, _LOST = 8.0, 50.0, 1000.0
"""How much more a node is to blame than its peers: it had the first rank that failed, a fatal error, or was lost."""


@dataclass(frozen=True, slots=True)
class Blame:
    """A node: failures that are its own (fractions of jobs), in so many node-days, and what that says of its rate.

    `rate`, `low` and `high` are failures in 1000 node-days: the mean and the 90 % interval. `lemon` is the probability
    that it fails more than FACTOR times as often as the median node.
    """

    node: str
    failures: float
    days: float
    rate: float
    low: float
    high: float
    lemon: float


@dataclass(slots=True)
class _End:
    """A job as all its reports tell it."""

    nodes: frozenset[str] = frozenset()
    time_ns: int = 0
    duration_s: float = 0.0
    state: str = ""
    failed: bool = False
    domain: str = ""
    culprit: str = ""
    weights: dict[str, float] = field(default_factory=dict)

    @property
    def chance(self) -> float:
        """How likely it is that a node made it fail."""
        if not self.failed:
            return 0.0
        if self.state in _HARDWARE or self.domain == "infrastructure" or max(self.weights.values()) >= _SIGNAL:
            return 1.0
        return 0.0 if self.state in _OWN_DOING or self.domain in {"user", "workload"} else _EITHER


def ranking(evidence: Iterable[Evidence], now_ns: int, days: float = DAYS) -> list[Blame]:
    """Return the blame of every node that had jobs in the last `days`, the likeliest lemon first."""
    since_ns = now_ns - round(days * _DAY_S * 1e9)
    ends, signals = _read(one for one in evidence if since_ns <= one.time_ns <= now_ns)
    _weigh(ends, signals)
    exposure = _exposure(ends.values())
    counts = _shared_out([end for end in ends.values() if end.chance > 0], exposure)
    shape, scale = _prior(counts, exposure)
    rates = [(counts.get(node, 0.0) + shape) / (exposed + scale) for node, exposed in exposure.items()]
    usual = median(rates) if rates else 0.0
    found = [_blame(node, counts.get(node, 0.0), exposed, (shape, scale), usual) for node, exposed in exposure.items()]
    return sorted(found, key=lambda one: (-one.lemon, -one.rate, one.node))


def lemons(ranked: Iterable[Blame], now_ns: int) -> list[Evidence]:
    """Return what the fleet itself says of nodes that are rather lemons than not; it says it once a day."""
    return [
        Evidence(
            made_id("lemon", one.node, now_ns // round(_DAY_S * 1e9)),
            now_ns,
            Kind.LEMON,
            f"{DAYS:g}d",
            one.node,
            value=round(one.lemon, 4),
            message=f"{one.failures:.1f} failures in {one.days:.1f} days of jobs",
            source=Source.FLEET,
        )
        for one in ranked
        if one.lemon >= _EITHER
    ]


def _read(evidence: Iterable[Evidence]) -> tuple[dict[str, _End], dict[str, list[Evidence]]]:
    """Return the ends of jobs by job, those of a logbook and of Slurm as one, and what points at nodes by node."""
    ends: dict[str, _End] = {}
    signals: dict[str, list[Evidence]] = {}
    for one in evidence:
        if one.kind is Kind.JOB and one.nodes:
            _merge(ends.setdefault(one.job or one.id, _End()), one)
        elif one.node and one.failed and (one.code == LOST or (one.kind is Kind.XID and one.code in _FATAL_XIDS)):
            signals.setdefault(one.node, []).append(one)
    return ends, signals


def _merge(end: _End, one: Evidence) -> None:
    end.nodes |= names(one.nodes)
    end.time_ns = max(end.time_ns, one.time_ns)
    end.duration_s = max(end.duration_s, one.value or 0.0)
    end.failed = end.failed or one.failed
    end.culprit, end.domain = one.culprit or end.culprit, one.domain or end.domain
    if one.source.trusted or not end.state:
        end.state = one.code


def _weigh(ends: Mapping[str, _End], signals: Mapping[str, Sequence[Evidence]]) -> None:
    """Weigh the nodes of the jobs that failed: the others say only for how long a node worked."""
    for job, end in ends.items():
        if end.failed:
            end.weights = {node: _weight(job, end, node, signals.get(node, ())) for node in end.nodes}


def _weight(job: str, end: _End, node: str, signals: Sequence[Evidence]) -> float:
    seen = [one for one in signals if one.job == job or _near(one, end)]
    weight = _FIRST_RANK if node == end.culprit else 1.0
    if any(one.kind is Kind.NODE for one in seen):
        return _LOST
    return _SIGNAL * weight if seen else weight


def _near(one: Evidence, end: _End) -> bool:
    return end.time_ns - _BEFORE_NS <= one.time_ns <= end.time_ns + _AFTER_NS


def _exposure(ends: Iterable[_End]) -> dict[str, float]:
    """Return the node-days that each node worked for jobs."""
    exposure: dict[str, float] = {}
    for end in ends:
        for node in end.nodes:
            exposure[node] = exposure.get(node, 0.0) + end.duration_s / _DAY_S
    return exposure


def _shared_out(failed: Sequence[_End], exposure: Mapping[str, float]) -> dict[str, float]:
    """Return the failures of each node: shares by what points at it times how often it fails, until both agree."""
    rates = dict.fromkeys(exposure, 1.0)
    counts: dict[str, float] = {}
    for _ in range(_ROUNDS):
        counts = {}
        for end in failed:
            pulls = {node: weight * rates[node] for node, weight in end.weights.items()}
            whole = sum(pulls.values())
            for node, pull in pulls.items():
                counts[node] = counts.get(node, 0.0) + end.chance * pull / whole
        shape, scale = _prior(counts, exposure)
        rates = {node: (counts.get(node, 0.0) + shape) / (exposed + scale) for node, exposed in exposure.items()}
    return counts


def _prior(counts: Mapping[str, float], exposure: Mapping[str, float]) -> tuple[float, float]:
    """Return shape and rate of the gamma prior: the fleet's mean, worth as much as half a failure."""
    days = sum(exposure.values())
    mean = (sum(counts.values()) + _EITHER) / (days + 1.0)
    return _EITHER, _EITHER / mean


def _blame(node: str, count: float, exposed: float, prior: tuple[float, float], usual: float) -> Blame:
    shape, scale = prior[0] + count, prior[1] + exposed
    low, high = (1000 * _quantile(chance, shape) / scale for chance in (0.05, 0.95))
    return Blame(node, count, exposed, 1000 * shape / scale, low, high, 1 - _cumulative(FACTOR * usual * scale, shape))


def _quantile(chance: float, shape: float) -> float:
    """Return the quantile of a gamma distribution of rate 1."""
    root = 1 - 1 / (9 * shape) + _NORMAL.inv_cdf(chance) / (3 * math.sqrt(shape))
    return shape * max(root, 0.0) ** 3


def _cumulative(value: float, shape: float) -> float:
    """Return the probability that a gamma variable of rate 1 is below `value`."""
    return _NORMAL.cdf(((value / shape) ** (1 / 3) - (1 - 1 / (9 * shape))) * 3 * math.sqrt(shape))
