"""The JSON records of a logbook: who asked for what, what was allocated, and how it ended.

Each is a frozen dataclass, written as JSON with a `version`, and without secrets. Times are UTC nanoseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from piolet.core.errors import ParseError, storage_errors
from piolet.core.files import read_json, write_json, write_text
from piolet.core.nodeset import NodeSet
from piolet.core.nouns import CheckResult, Gpu, Severity
from piolet.core.redact import redacted

T = TypeVar("T")

RUNNING, ENDED = "RUNNING", "ENDED"


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked `piolet run` for."""

    nodes: int = 1
    spares: int = 0
    environment: str = ""
    protocol: str = ""
    record: bool = False


@dataclass(frozen=True, slots=True)
class NodeAllocation:
    """One node of the job: its GPUs, when it was held, and whether the program ran on it."""

    node: str
    gpus: tuple[Gpu, ...] = ()
    from_ns: int | None = None
    to_ns: int | None = None
    used: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node that was not used, and why."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class StagedCopy:
    """What was copied to every node before the program began; `way` says how, and why so."""

    source: str
    target: str
    size_bytes: int
    duration_s: float
    way: str


@dataclass(frozen=True, slots=True)
class JobRecord:
    """job.json. `program_*` bound the program; `account` is Slurm's.

    `sample_interval_s` is the recorder's period, None if nothing was recorded; `intervals_s` are those of families that
    the user gave another.

    `attempt` counts from 1; from the second on, `previous_job` is the job that this one does again.
    """

    job_id: str
    cluster: str
    user: str
    command: tuple[str, ...]
    request: Request = Request()
    name: str = ""
    allocation: tuple[NodeAllocation, ...] = ()
    refused: tuple[Refusal, ...] = ()
    simulated: tuple[str, ...] = ()
    submitted_ns: int | None = None
    started_ns: int | None = None
    program_started_ns: int | None = None
    program_ended_ns: int | None = None
    sample_interval_s: float | None = None
    intervals_s: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    account: str = ""
    version: int = 1
    attempt: int = 1
    previous_job: str = ""
    staged: tuple[StagedCopy, ...] = ()

    @property
    def gpus(self) -> tuple[tuple[str, Gpu], ...]:
        """Every allocated GPU of the nodes that were used, with its node."""
        return tuple((held.node, gpu) for held in self.allocation if held.used for gpu in held.gpus)

    def period_s(self, family: str) -> float | None:
        """Return the seconds between samples of `family`; None if nobody knows."""
        return self.intervals_s.get(family, self.sample_interval_s)


class Domain(StrEnum):
    """Where the cause of an end lies, as far as the evidence says."""

    NONE = "none"
    WORKLOAD = "workload"
    INFRASTRUCTURE = "infrastructure"
    USER = "user"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Outcome:
    """outcome.json: `state` is Slurm's word for it; `exit_status` is what `piolet run` exits with.

    `bad_nodes` are those that the evidence points at; `next_job` is the job that was submitted to do this one again.
    `aborted_on` is the sign (xid, hang, nan, stall, heartbeat) on which Piolet ended the program early.
    """

    state: str
    exit_status: int
    reason: str = ""
    domain: Domain = Domain.NONE
    first_failing_node: str = ""
    first_failing_rank: int | None = None
    next_action: str = ""
    ended_ns: int | None = None
    version: int = 1
    bad_nodes: tuple[str, ...] = ()
    next_job: str = ""
    aborted_on: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A fact that supports a diagnosis: a value with what was expected, and the plot and interval that show it.

    `family` and `column` name the plot (empty: none), `node` and `gpu` the line in it; times are UTC nanoseconds.
    """

    what: str
    value: float | str | None = None
    expected: float | str | None = None
    unit: str = ""
    family: str = ""
    column: str = ""
    node: str = ""
    gpu: int | None = None
    from_ns: int | None = None
    to_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is wrong, where, when, why that is believed (0..1), what would refute it, and what to do next.

    `nodes` is empty for the whole job. `effects` are the findings that this one explains, one sentence each; `notes`
    what people wrote about the like before.
    """

    rule: str
    title: str
    severity: Severity
    confidence: float
    from_ns: int
    to_ns: int
    reason: str
    next_step: str
    refuted_by: str
    nodes: tuple[str, ...] = ()
    gpu: int | None = None
    rank: int | None = None
    evidence: tuple[Evidence, ...] = ()
    effects: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """The GPU, the nodes, or the job."""
        where = str(NodeSet(self.nodes)) if self.nodes else "job"
        return where if self.gpu is None else f"{where}:{self.gpu}"


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A rule that could not judge, and the data that it lacked."""

    rule: str
    missing: str


@dataclass(frozen=True, slots=True)
class Findings:
    """findings.json: what diagnosis concluded, the likeliest cause first; `complete` when the job had ended."""

    made_ns: int
    complete: bool
    findings: tuple[Diagnosis, ...] = ()
    unanswered: tuple[Unanswered, ...] = ()
    version: int = 1


def write_findings(path: Path, findings: Findings) -> None:
    """Write findings.json atomically."""
    write_json(path, redacted(asdict(findings)))


def read_findings(path: Path) -> Findings | None:
    """Read findings.json, or None while nobody has diagnosed the job."""
    return _read(path, Findings) if path.exists() else None


def write_job(path: Path, record: JobRecord) -> None:
    """Write job.json atomically."""
    write_json(path, redacted(asdict(record)))


def read_job(path: Path) -> JobRecord:
    """Read job.json; ParseError names the file and the field that is wrong."""
    return _read(path, JobRecord)


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Write outcome.json atomically."""
    write_json(path, redacted(asdict(outcome)))


def read_outcome(path: Path) -> Outcome | None:
    """Read outcome.json, or None while the job has not ended."""
    return _read(path, Outcome) if path.exists() else None


def state(job: JobRecord, outcome: Outcome | None) -> str:
    """Return Slurm's word for how a job ended; without an outcome RUNNING, or ENDED where a recorder saw the end."""
    if outcome:
        return outcome.state
    return RUNNING if job.program_ended_ns is None else ENDED


def write_checks(directory: Path, stage: str, results: Iterable[CheckResult]) -> Path:
    """Write vet/<stage>.jsonl, one result a line, and return its path."""
    path = directory / f"{stage}.jsonl"
    write_text(path, "".join(json.dumps(redacted(asdict(result))) + "\n" for result in results))
    return path


def read_checks(directory: Path) -> tuple[CheckResult, ...]:
    """Read every check result of every stage, in the order of stages and lines."""
    return tuple(result for path in sorted(directory.glob("*.jsonl")) for result in _lines(path))


def _lines(path: Path) -> Iterator[CheckResult]:
    with storage_errors(path, "read"):
        lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        yield parse_check(line, f"{path}:{number}")


def parse_check(line: str, source: str) -> CheckResult:
    """Parse one JSON line into a check result."""
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ParseError(f"not a JSON line: {error}", source=source, text=line) from error
    return _validated(value, CheckResult, source)


def _read(path: Path, kind: type[T]) -> T:
    return _validated(read_json(path), kind, str(path))


def _validated(value: Any, kind: type[T], source: str) -> T:  # noqa: ANN401 - JSON is any value
    from pydantic import ValidationError  # noqa: PLC0415 - slow to import, needed to read only

    try:
        result: T = _adapters()[kind].validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ParseError(f"{kind.__name__}.{place}: {first['msg']}", source=source) from error
    return result


@cache
def _adapters() -> dict[type, Any]:
    from pydantic import TypeAdapter  # noqa: PLC0415 - slow to import, needed to read only

    return {kind: TypeAdapter(kind) for kind in (JobRecord, Outcome, CheckResult, Findings)}
