"""The nouns that capabilities share: small, frozen values with the field's own names."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How much a finding matters: information, a warning to look at, or an error that stops work."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Status(StrEnum):
    """What a check said. UNKNOWN is a check that could not run; it is never read as healthy."""

    PASS = "pass"  # noqa: S105 - an outcome, not a password
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Interval:
    """A half-open stretch of time [start_ns, end_ns) in UTC nanoseconds."""

    start_ns: int
    end_ns: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a node. `index` is the node's own index (NVML order), `uuid` identifies it for ever."""

    index: int
    uuid: str
    model: str = ""
    memory_bytes: int | None = None
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found on one node.

    `value` and `threshold` are in `unit`; `remedy` says what to do next; `duration_s` is wall-clock seconds. Only what
    is of severity error refuses a node.
    """

    check: str
    node: str
    status: Status
    reason: str
    value: float | str | None = None
    threshold: float | str | None = None
    unit: str = ""
    remedy: str = ""
    duration_s: float = 0.0
    version: str = ""
    time_ns: int = field(default_factory=time.time_ns)
    severity: Severity = Severity.ERROR
    stage: str = ""

    @property
    def refuses(self) -> bool:
        """Tell whether a node with this result is not ready."""
        return self.status is not Status.PASS and self.severity is Severity.ERROR


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a user or an operator should know, with the evidence that supports it."""

    subject: str
    severity: Severity
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    suggested_action: str = ""
