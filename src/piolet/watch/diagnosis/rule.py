"""What a rule is: knowledge with its source, what it needs, what would refute it, and a function that judges.

A rule only suspects. What is cause and what is effect, the causal pass decides (see causal).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum

from piolet.core.nouns import Severity
from piolet.logbook.records import Evidence
from piolet.watch.diagnosis.case import Case


class Level(IntEnum):
    """How near to the root of things what a rule finds is: hardware breaks nodes, nodes slow jobs."""

    HARDWARE = 0
    SYSTEM = 1
    WORKLOAD = 2
    SYMPTOM = 3


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What a rule believes: where (no nodes: the whole job), from when to when (UTC ns), how surely (0..1), and why."""

    nodes: tuple[str, ...]
    from_ns: int
    to_ns: int
    confidence: float
    reason: str
    evidence: tuple[Evidence, ...] = ()
    gpu: int | None = None
    rank: int | None = None
    severity: Severity = Severity.WARNING
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule. `needs` are family.column, or a family; `explains` the rules whose findings this one may cause."""

    name: str
    title: str
    level: Level
    knowledge: str
    source: str
    refuted_by: str
    next_step: str
    needs: tuple[str, ...]
    judge: Callable[[Case], Iterable[Suspicion]]
    explains: frozenset[str] = frozenset()
