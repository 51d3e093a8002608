"""Evidence: one thing that was observed about a node, a GPU or a job, by somebody, at some time.

It is what the fleet decides by, and the form in which nodes, logbooks and Slurm say what they saw. An id makes
it idempotent: the same thing reported twice has the same id, and counts once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from piolet.core.nouns import Status


class Kind(StrEnum):
    """What was observed. `code` says which: the Xid, the check's name, the job's state ..."""

    ALERT = "alert"
    CHECK = "check"
    ECC = "ecc"
    JOB = "job"
    LEMON = "lemon"
    LINK = "link"
    NODE = "node"
    NVLINK = "nvlink"
    REMAP = "remap"
    SLOW = "slow"
    THROTTLE = "throttle"
    XID = "xid"


class Source(StrEnum):
    """Who said it. What users can write (their logbooks) makes a node suspect at most; see `trusted`."""

    ALERT = "alert"
    FLEET = "fleet"
    LOGBOOK = "logbook"
    NODE = "node"
    SLURM = "slurm"

    @property
    def trusted(self) -> bool:
        """Whether only the site itself can have said it."""
        return self is not Source.LOGBOOK


@dataclass(frozen=True, slots=True)
class Evidence:
    """One observation. `time_ns` is when it was made; `gpu` is a UUID and `serial` what is printed on the board.

    A job's end names its `nodes` (Slurm's form), who failed first (`culprit`) and the `domain` of its cause; `value` is
    for how many seconds it ran.
    `tier` is the protocol of a check. `source` is set by who gathers it.
    """

    id: str
    time_ns: int
    kind: Kind
    code: str
    node: str = ""
    gpu: str = ""
    serial: str = ""
    status: Status = Status.FAIL
    job: str = ""
    user: str = ""
    nodes: str = ""
    culprit: str = ""
    domain: str = ""
    tier: str = ""
    value: float | None = None
    message: str = ""
    source: Source = Source.NODE

    @property
    def group(self) -> str:
        """What repeats: ``xid:79``, ``check:gpu_ecc``. A breaker opens for a group."""
        return f"{self.kind.value}:{self.code}"

    @property
    def failed(self) -> bool:
        """Whether it speaks against the node; what could not be judged does not."""
        return self.status is Status.FAIL


REVALIDATION = "revalidation"
"""The check of a node that the fleet itself has vetted before it takes it back."""

LOST = "NODE_FAIL"
"""The code of a node that Slurm lost during a job."""

FIELDS = tuple(field.name for field in fields(Evidence))
_DEFAULTS = {field.name: field.default for field in fields(Evidence)}


def made_id(*parts: object) -> str:
    """Return the id of evidence that `parts` identify, the same for the same parts."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()[:32]


def to_json(evidence: Evidence) -> dict[str, Any]:
    """Return what differs from the defaults."""
    return {name: value for name in FIELDS if (value := getattr(evidence, name)) != _DEFAULTS[name]}
