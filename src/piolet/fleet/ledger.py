"""The ledger: everything that the fleet learned, decided and did, in order, each entry chained to the one before.

An entry's hash covers its text and the hash before it, so a change anywhere is found (`verify`). The state of the fleet
is a fold of the ledger (piolet.fleet.state) and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from piolet.core.errors import ParseError, PioletError
from piolet.core.nouns import Severity, Status
from piolet.fleet import evidence as observed
from piolet.fleet.evidence import Evidence, Kind, Source

GENESIS = "0" * 64


class State(StrEnum):
    """Where a node stands, from healthy to out of service and back; see docs/reference/fleet.md."""

    IN = "in"
    OBSERVED = "observed"
    SUSPECT = "suspect"
    DRAINED = "drained"
    RESET = "reset"
    REBOOT = "reboot"
    REVALIDATE = "revalidate"
    RMA = "rma"
    PROBATION = "probation"


LADDER = (State.IN, State.OBSERVED, State.SUSPECT, State.DRAINED)
"""The way out. Evidence only ever leads up it; the way back is being healed and PROBATION, or being quiet."""

DRAINED = frozenset({State.DRAINED, State.RESET, State.REBOOT, State.RMA})
"""The states in which our own drain holds a node out."""

OUT = DRAINED | {State.REVALIDATE}
"""The states in which no user's job starts on a node; one that is vetted is reserved for that."""


class Mode(StrEnum):
    """What a rule may do: be noted only, ask for an approval, or act."""

    SHADOW = "shadow"
    ADVISE = "advise"
    ACT = "act"


class Verb(StrEnum):
    """What is done to nodes."""

    DRAIN = "drain"
    RESUME = "resume"
    RESET = "reset"
    REBOOT = "reboot"
    VET = "vet"
    TICKET = "ticket"
    MARK = "mark"
    UNMARK = "unmark"


class Phase(StrEnum):
    """How far an action is: begun is written before the world is touched, so that a kill loses none."""

    BEGUN = "begun"
    DONE = "done"
    DROPPED = "dropped"


class Order(StrEnum):
    """What operators say."""

    APPROVE = "approve"
    HOLD = "hold"
    RELEASE = "release"
    RETURN = "return"
    VET = "vet"
    CLOSE_BREAKER = "close-breaker"


@dataclass(frozen=True, slots=True)
class Firing:
    """A rule that held: on which evidence, and what it asks for. Nothing else than shadow ever moves a node."""

    rule: str
    node: str
    group: str
    to: State
    mode: Mode
    reason: str
    evidence: tuple[str, ...] = ()
    gpu: str = ""
    severity: Severity = Severity.WARNING


@dataclass(frozen=True, slots=True)
class Transition:
    """A node went from one state to another, and why."""

    node: str
    before: State
    after: State
    reason: str


@dataclass(frozen=True, slots=True)
class Step:
    """A phase of an action. `action` is its id, the same in all its phases.

    `gpu` is what a reset is about, `protocol` what vetting runs, and `job` the job that vets.
    """

    action: str
    verb: Verb
    node: str
    phase: Phase
    reason: str = ""
    gpu: str = ""
    protocol: str = ""
    job: str = ""


@dataclass(frozen=True, slots=True)
class Instruction:
    """What an operator ordered about a node, or about the group of a breaker, and until when it holds."""

    order: Order
    target: str
    user: str
    reason: str = ""
    until_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Breaker:
    """A group failed on too many nodes at once: the check is to blame, and excludes nobody until it is closed."""

    group: str
    nodes: int
    reason: str


Content = Evidence | Firing | Transition | Step | Instruction | Breaker

_KINDS: dict[str, type] = {
    "evidence": Evidence,
    "firing": Firing,
    "transition": Transition,
    "step": Step,
    "instruction": Instruction,
    "breaker": Breaker,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_ENUMS: dict[str, dict[str, type[StrEnum]]] = {
    "evidence": {"kind": Kind, "status": Status, "source": Source},
    "firing": {"to": State, "mode": Mode, "severity": Severity},
    "transition": {"before": State, "after": State},
    "step": {"verb": Verb, "phase": Phase},
    "instruction": {"order": Order},
    "breaker": {},
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger. `time_ns` is when it was written, and never less than that of the entry before."""

    seq: int
    time_ns: int
    content: Content
    text: str
    hash: str

    @property
    def kind(self) -> str:
        """The word for what it holds."""
        return _NAMES[type(self.content)]


def append(contents: Iterable[Content], now_ns: int, last: Entry | None) -> list[Entry]:
    """Return the entries that hold `contents` after `last`."""
    seq, before, time_ns = (last.seq, last.hash, max(now_ns, last.time_ns)) if last else (0, GENESIS, now_ns)
    entries = []
    for content in contents:
        seq += 1
        text = _text(seq, time_ns, content)
        before = _hash(before, text)
        entries.append(Entry(seq, time_ns, content, text, before))
    return entries


def read(rows: Iterable[tuple[str, str]]) -> Iterator[Entry]:
    """Yield the entries of (text, hash) rows, in order; a text of another form is a ParseError."""
    for text, digest in rows:
        try:
            seq, time_ns, kind, values = json.loads(text)
            yield Entry(seq, time_ns, _decoded(kind, values), text, digest)
        except (KeyError, TypeError, ValueError) as error:
            raise ParseError(f"not an entry of a ledger: {error}", source="ledger", text=text) from error


def verify(rows: Iterable[tuple[str, str]]) -> tuple[int, str]:
    """Return how many entries there are, and the last hash: entries cut off at the end show in these alone.

    Raises:
        PioletError: an entry was changed, taken out or put in; the message names the first.
    """
    before, seq = GENESIS, 0
    for text, digest in rows:
        seq += 1
        if _hash(before, text) != digest or not text.startswith(f"[{seq},"):
            raise PioletError(
                f"the ledger is broken at entry {seq}: its text is not what was written",
                where=text[:120],
                remedy="keep this file as it is, restore the database from a backup, and find out who can write to it",
            )
        before = digest
    return seq, before


def _hash(before: str, text: str) -> str:
    return hashlib.sha256(f"{before}\n{text}".encode()).hexdigest()


def _text(seq: int, time_ns: int, content: Content) -> str:
    values = observed.to_json(content) if isinstance(content, Evidence) else asdict(content)
    return json.dumps([seq, time_ns, _NAMES[type(content)], values], separators=(",", ":"))


def _decoded(kind: str, values: dict[str, Any]) -> Content:
    for name, enum in _ENUMS[kind].items():
        if name in values:
            values[name] = enum(values[name])
    if "evidence" in values:
        values["evidence"] = tuple(values["evidence"])
    content: Content = _KINDS[kind](**values)
    return content
