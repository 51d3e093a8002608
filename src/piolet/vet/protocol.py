"""A protocol, compiled: what a node has to check, with everything decided and validated beforehand.

It travels to the nodes as JSON on the command line of the step, so a node reads no configuration and needs no
parser of ours. This module must stay quick to import.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from piolet.core.nouns import Severity

DEFAULT_TIMEOUT_S = 10.0
"""Seconds a check may take unless the protocol says otherwise; the passive checks need well under one."""

DEFAULT_STAGE = "nodes"

BEGUN = "piolet-vet begins on "
"""What a node says at once, with its name: from then on it is waited for as long as its checks may take."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """How often a check is done, `pause_s` apart, and how many of the times it must pass: all, most or one."""

    times: int = 1
    passes: str = "all"
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much worse than others a value may be: `mad` median absolute deviations, and `margin` (0..1) of the median.

    Fewer than `least` values compare nobody.
    """

    mad: float = 5.0
    margin: float = 0.05
    least: int = 4


@dataclass(frozen=True, slots=True)
class Usual:
    """What values of a check usually were on nodes with GPUs of a model: their count, median and median deviation."""

    model: str
    count: int
    median: float
    deviation: float

    @classmethod
    def of(cls, values: Sequence[float], model: str = "") -> Usual:
        """Sum values up; there must be one."""
        from statistics import median  # noqa: PLC0415 - slow to import, and nodes need it not

        middle = median(values)
        return cls(model, len(values), middle, median([abs(value - middle) for value in values]))


@dataclass(frozen=True, slots=True)
class Criteria:
    """What is asked of the value of a check that has passed; None and empty ask nothing.

    `history` compares with `usual`, what earlier jobs have measured.
    """

    better: str = ""
    at_least: float | None = None
    at_most: float | None = None
    peers: Comparison | None = None
    history: Comparison | None = None
    usual: tuple[Usual, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedCheck:
    """One check to run.

    `reference` is where the check is found (``module:attribute``), so that nodes need not search for plugins.
    `requirements` are the distributions the entry asks for; they are looked for on the node, never installed. The
    values of a `uniform` check are compared between the nodes; a `collective` one measures them together. `timeout_s`
    is for each time that it is repeated; `typical_s` are the seconds that it takes on a healthy node.
    """

    name: str
    type: str
    reference: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = DEFAULT_TIMEOUT_S
    requirements: tuple[str, ...] = ()
    uniform: bool = False
    quiet: bool = False
    collective: bool = False
    typical_s: float = 1.0
    light: bool = False
    stage: str = DEFAULT_STAGE
    severity: Severity = Severity.ERROR
    repeat: Repeat = Repeat()
    criteria: Criteria | None = None

    @property
    def longest_s(self) -> float:
        """Seconds that it may take with all its repetitions."""
        return self.repeat.times * (self.timeout_s + self.repeat.pause_s)


@dataclass(frozen=True, slots=True)
class Protocol:
    """A named list of checks; `origin` is the file it was read from, `kernel_log` the log that nodes read.

    `left_out` are the checks for which its budget is too small.
    """

    name: str
    checks: tuple[PlannedCheck, ...]
    origin: str = ""
    kernel_log: str = "/dev/kmsg"
    left_out: tuple[str, ...] = ()

    @property
    def longest_s(self) -> float:
        """Seconds that a node may take: the longest of what it does at once, and all that it does one by one."""
        at_once = max((check.longest_s for check in self.checks if not check.quiet), default=0.0)
        return at_once + sum(check.longest_s for check in self.checks if check.quiet)

    def stages(self) -> tuple[Protocol, ...]:
        """Return a protocol for each stage, in the order in which they are first named."""
        names = dict.fromkeys(check.stage for check in self.checks)
        parts = [replace(self, checks=tuple(check for check in self.checks if check.stage == name)) for name in names]
        return tuple(parts) or (self,)

    def to_json(self) -> str:
        """Return the protocol as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))


def parsed(text: str) -> Any:  # noqa: ANN401 - any JSON
    """Parse JSON that we wrote; json itself first looks for blanks, with expressions that take long to load."""
    value, _ = json.JSONDecoder().raw_decode(text)
    return value


def from_json(text: str) -> Protocol:
    """Read what `Protocol.to_json` wrote; anything else raises ValueError, TypeError or KeyError."""
    value = parsed(text)
    return Protocol(**(value | {"checks": tuple(_planned(check) for check in value["checks"]), "left_out": ()}))


def _planned(value: dict[str, Any]) -> PlannedCheck:
    special = {
        "requirements": tuple(value.get("requirements", ())),
        "severity": Severity(value.get("severity", Severity.ERROR)),
        "repeat": Repeat(**value.get("repeat", {})),
        "criteria": None,  # judged where all answers are, not on nodes
    }
    return PlannedCheck(**(value | special))
