"""The states of jobs and nodes, in every form in which Slurm prints them.

Sources: slurm.h and node_state_string() of Slurm 22.05; squeue(1) JOB STATE CODES; sinfo(1) NODE STATE CODES.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class JobState(StrEnum):
    """What a job is doing. UNKNOWN is a word that this version of Piolet does not know; it is not an end."""

    BOOT_FAIL = "BOOT_FAIL"
    CANCELLED = "CANCELLED"
    COMPLETED = "COMPLETED"
    COMPLETING = "COMPLETING"
    CONFIGURING = "CONFIGURING"
    DEADLINE = "DEADLINE"
    FAILED = "FAILED"
    NODE_FAIL = "NODE_FAIL"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    PENDING = "PENDING"
    PREEMPTED = "PREEMPTED"
    REQUEUED = "REQUEUED"
    REQUEUE_FED = "REQUEUE_FED"
    REQUEUE_HOLD = "REQUEUE_HOLD"
    RESIZING = "RESIZING"
    RESV_DEL_HOLD = "RESV_DEL_HOLD"
    REVOKED = "REVOKED"
    RUNNING = "RUNNING"
    SIGNALING = "SIGNALING"
    SPECIAL_EXIT = "SPECIAL_EXIT"
    STAGE_OUT = "STAGE_OUT"
    STOPPED = "STOPPED"
    SUSPENDED = "SUSPENDED"
    TIMEOUT = "TIMEOUT"
    UNKNOWN = "UNKNOWN"

    @property
    def finished(self) -> bool:
        """Whether the job will never run again."""
        return self in _FINISHED


_FINISHED = frozenset(
    {
        JobState.BOOT_FAIL,
        JobState.CANCELLED,
        JobState.COMPLETED,
        JobState.DEADLINE,
        JobState.FAILED,
        JobState.NODE_FAIL,
        JobState.OUT_OF_MEMORY,
        JobState.PREEMPTED,
        JobState.REVOKED,
        JobState.TIMEOUT,
    }
)

_COMPACT_JOB = {
    "BF": JobState.BOOT_FAIL,
    "CA": JobState.CANCELLED,
    "CD": JobState.COMPLETED,
    "CF": JobState.CONFIGURING,
    "CG": JobState.COMPLETING,
    "DL": JobState.DEADLINE,
    "F": JobState.FAILED,
    "NF": JobState.NODE_FAIL,
    "OOM": JobState.OUT_OF_MEMORY,
    "PD": JobState.PENDING,
    "PR": JobState.PREEMPTED,
    "R": JobState.RUNNING,
    "RD": JobState.RESV_DEL_HOLD,
    "RF": JobState.REQUEUE_FED,
    "RH": JobState.REQUEUE_HOLD,
    "RQ": JobState.REQUEUED,
    "RS": JobState.RESIZING,
    "RV": JobState.REVOKED,
    "S": JobState.SUSPENDED,
    "SE": JobState.SPECIAL_EXIT,
    "SI": JobState.SIGNALING,
    "SO": JobState.STAGE_OUT,
    "ST": JobState.STOPPED,
    "TO": JobState.TIMEOUT,
}  # fmt: skip - a table


class NodeBase(StrEnum):
    """What a node is at bottom; flags say what happens to it."""

    ALLOCATED = "ALLOCATED"
    DOWN = "DOWN"
    ERROR = "ERROR"
    FUTURE = "FUTURE"
    IDLE = "IDLE"
    MIXED = "MIXED"
    UNKNOWN = "UNKNOWN"


class NodeFlag(StrEnum):
    """What else holds of a node, beside its base state."""

    CLOUD = "CLOUD"
    COMPLETING = "COMPLETING"
    DRAIN = "DRAIN"
    DYNAMIC_NORM = "DYNAMIC_NORM"
    FAIL = "FAIL"
    INVALID_REG = "INVALID_REG"
    MAINTENANCE = "MAINTENANCE"
    NOT_RESPONDING = "NOT_RESPONDING"
    PERFCTRS = "PERFCTRS"
    PLANNED = "PLANNED"
    POWERED_DOWN = "POWERED_DOWN"
    POWERING_DOWN = "POWERING_DOWN"
    POWERING_UP = "POWERING_UP"
    POWER_DOWN = "POWER_DOWN"
    REBOOT_ISSUED = "REBOOT_ISSUED"
    REBOOT_REQUESTED = "REBOOT_REQUESTED"
    RESERVED = "RESERVED"
    UNRECOGNIZED = "UNRECOGNIZED"


_KEEPS_JOBS_AWAY = frozenset(
    {
        NodeFlag.DRAIN,
        NodeFlag.FAIL,
        NodeFlag.INVALID_REG,
        NodeFlag.MAINTENANCE,
        NodeFlag.NOT_RESPONDING,
        NodeFlag.PERFCTRS,
        NodeFlag.REBOOT_ISSUED,
        NodeFlag.REBOOT_REQUESTED,
        NodeFlag.RESERVED,
        NodeFlag.UNRECOGNIZED,
    }
)  # powering a node up is Slurm's own affair: it places jobs on nodes that are off

_SUFFIX = {
    "*": NodeFlag.NOT_RESPONDING,
    "~": NodeFlag.POWERED_DOWN,
    "#": NodeFlag.POWERING_UP,
    "!": NodeFlag.POWER_DOWN,
    "%": NodeFlag.POWERING_DOWN,
    "$": NodeFlag.MAINTENANCE,
    "@": NodeFlag.REBOOT_REQUESTED,
    "^": NodeFlag.REBOOT_ISSUED,
    "-": NodeFlag.PLANNED,
}  # fmt: skip - a table

_NODE_WORD: dict[str, tuple[NodeBase | None, NodeFlag | None]] = {
    **{base.value: (base, None) for base in NodeBase},
    **{flag.value: (None, flag) for flag in NodeFlag},
    "ALLOC": (NodeBase.ALLOCATED, None),
    "MIX": (NodeBase.MIXED, None),
    "UNK": (NodeBase.UNKNOWN, None),
    "FUTR": (NodeBase.FUTURE, None),
    "ERR": (NodeBase.ERROR, None),
    "COMP": (NodeBase.IDLE, NodeFlag.COMPLETING),
    "DRAINED": (NodeBase.IDLE, NodeFlag.DRAIN),
    "DRAINING": (NodeBase.ALLOCATED, NodeFlag.DRAIN),
    "DRNG": (NodeBase.ALLOCATED, NodeFlag.DRAIN),
    "FAILING": (NodeBase.ALLOCATED, NodeFlag.FAIL),
    "FAILG": (NodeBase.ALLOCATED, NodeFlag.FAIL),
    "INVAL": (NodeBase.DOWN, NodeFlag.INVALID_REG),
    "MAINT": (None, NodeFlag.MAINTENANCE),
    "RESV": (None, NodeFlag.RESERVED),
    "PLND": (None, NodeFlag.PLANNED),
    "NO_RESPOND": (None, NodeFlag.NOT_RESPONDING),
    "REBOOT": (None, NodeFlag.REBOOT_REQUESTED),
    "BOOT": (None, NodeFlag.REBOOT_ISSUED),
    "POW_DN": (None, NodeFlag.POWERING_DOWN),
    "POW_UP": (None, NodeFlag.POWERING_UP),
}  # fmt: skip - a table


@dataclass(frozen=True, slots=True)
class NodeState:
    """A base state and its flags; `str()` is scontrol's form, ``IDLE+DRAIN``."""

    base: NodeBase
    flags: frozenset[NodeFlag] = frozenset()

    def __str__(self) -> str:
        return "+".join([self.base.value, *sorted(flag.value for flag in self.flags)])

    @property
    def usable(self) -> bool:
        """Whether Slurm may start a job here, now or when the present ones end."""
        return self.base in {NodeBase.IDLE, NodeBase.MIXED, NodeBase.ALLOCATED} and not self.flags & _KEEPS_JOBS_AWAY

    @property
    def idle(self) -> bool:
        """Whether a job could start here at once with the whole node."""
        return self.base is NodeBase.IDLE and self.usable and NodeFlag.COMPLETING not in self.flags


def parse_job_state(text: str) -> JobState:
    """Return the state of ``RUNNING``, ``R``, ``CANCELLED by 1000`` or ``CANCELLED+`` (a cut column)."""
    word = text.strip().upper().removesuffix("+").split(" ")[0]
    if word in _COMPACT_JOB:
        return _COMPACT_JOB[word]
    return JobState(word) if word in JobState.__members__ else JobState.UNKNOWN


def parse_node_state(text: str) -> NodeState:
    """Return the state of ``IDLE+DRAIN``, ``drained*``, ``mix~`` ...

    A word that is not known becomes the flag UNRECOGNIZED, which keeps the node from counting as usable.
    """
    words, suffixes = re.fullmatch(r"(.*?)([*~#!%$@^+-]*)", text.strip().upper(), re.DOTALL).groups()  # type: ignore[union-attr]
    flags = {_SUFFIX[suffix] for suffix in suffixes if suffix in _SUFFIX}
    if "+" in suffixes:
        flags.add(NodeFlag.COMPLETING)
    base: NodeBase | None = None
    for word in words.split("+"):
        found, flag = _NODE_WORD.get(word, (None, NodeFlag.UNRECOGNIZED))
        base = base or found
        flags |= {flag} if flag else set()
    return NodeState(base or _base_of(flags), frozenset(flags))


def _base_of(flags: set[NodeFlag]) -> NodeBase:
    """Return the base of a node whose compact state names a flag alone, such as ``drain`` or ``maint``."""
    return NodeBase.UNKNOWN if NodeFlag.UNRECOGNIZED in flags else NodeBase.IDLE
