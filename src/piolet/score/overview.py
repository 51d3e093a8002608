"""Everything that the terminal and the report tell about a job, read once: score, nodes, data quality, environment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from piolet.core.nouns import CheckResult, Interval, Status
from piolet.logbook.environments import Verified, environment, verified, verified_files
from piolet.logbook.layout import Logbook
from piolet.logbook.quality import Quality, assess
from piolet.logbook.reader import Reader, read, rereading
from piolet.logbook.records import (
    Diagnosis,
    JobRecord,
    Outcome,
    read_checks,
    read_findings,
    read_job,
    read_outcome,
)
from piolet.logbook.schema import FAMILIES
from piolet.score.advice import Advice, advice
from piolet.score.job import score_job
from piolet.score.measure import window_of
from piolet.score.model import JobScore
from piolet.score.resources import Resources, resources
from piolet.score.steps import StepTime, step_time
from piolet.score.work import NOTHING_TOLD, Work, work

_SAMPLED = ("gpu", "host", "user")


class Role(StrEnum):
    """What became of a node of the allocation."""

    USED = "used"
    REFUSED = "refused"
    SPARE_USED = "spare, used"
    SPARE_FREED = "spare, not needed"


@dataclass(frozen=True, slots=True)
class NodeStory:
    """One node: its role, what vetting said, and whose place it took."""

    node: str
    role: Role
    gpus: int
    passed: int = 0
    not_passed: tuple[str, ...] = ()
    reason: str = ""
    took_place_of: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """A logbook as people want to see it. `never_collected` names families and columns without any value.

    `stacks` are the nodes whose stacks were collected when a hang was suspected.
    """

    logbook: Logbook
    job: JobRecord
    outcome: Outcome | None
    score: JobScore
    nodes: tuple[NodeStory, ...]
    quality: Quality
    never_collected: tuple[str, ...]
    environment: tuple[tuple[str, str, str], ...]
    step_time: StepTime | None = None
    findings: tuple[Diagnosis, ...] = ()
    work: Work = NOTHING_TOLD
    resources: Resources | None = None
    verified: tuple[Verified, ...] = ()
    stacks: tuple[str, ...] = ()

    @property
    def advice(self) -> tuple[Advice, ...]:
        """Things to try, those that may win most first."""
        return advice(self.score, self.findings, self.step_time)


@rereading
def open_overview(logbook: Logbook) -> Overview:
    """Read `logbook` and return its overview."""
    with read(logbook) as reader:
        return overview(reader)


def overview(reader: Reader, parameters: float | None = None) -> Overview:
    """Return the overview of an open logbook; `parameters` is the size of the model, where the program did not tell."""
    logbook = reader.logbook
    job = read_job(logbook.job)
    score = score_job(reader, job)
    window = window_of(reader, job)
    checks = sorted(logbook.vet.glob("*.jsonl"))
    return Overview(
        logbook=logbook,
        job=job,
        outcome=read_outcome(logbook.outcome) if _own(reader, logbook.outcome) else None,
        score=score,
        nodes=node_stories(job, read_checks(logbook.vet) if _own(reader, *checks) else ()),
        quality=assess(reader, _bounded(reader, job)),
        never_collected=never_collected(reader),
        environment=environment(logbook) if _own(reader, logbook.environment_lock) else (),
        step_time=step_time(reader),
        findings=_findings(logbook) if _own(reader, logbook.findings) else (),
        work=work(reader, score, parameters),
        resources=resources(reader, window, score) if window else None,
        verified=verified(reader.own(verified_files(logbook))),
        stacks=tuple(path.stem for path in reader.own(sorted(logbook.stacks.glob("*.txt")))),
    )


def _own(reader: Reader, *paths: Path) -> bool:
    """Return whether the records at `paths` are the logbook's own, and no links to another's; see ownership."""
    return len(reader.own(paths)) == len(paths)


def _findings(logbook: Logbook) -> tuple[Diagnosis, ...]:
    found = read_findings(logbook.findings)
    return found.findings if found else ()


def node_stories(job: JobRecord, checks: Sequence[CheckResult]) -> tuple[NodeStory, ...]:
    """Return what became of each node, in the order of allocation, then refused ones that were not allocated.

    The first `request.nodes` of the allocation are those asked for, the rest are spares; used spares take the places
    of refused nodes in order.
    """
    vetted: dict[str, list[CheckResult]] = {}
    for check in checks:
        vetted.setdefault(check.node, []).append(check)
    reasons = {refusal.node: refusal.reason for refusal in job.refused}
    held = [each.node for each in job.allocation]
    spares = set(held[job.request.nodes :]) if job.request.spares else set()
    gone = iter([node for node in reasons if node not in spares])
    stories = []
    for each in job.allocation:
        role = _role(each.used, each.node in reasons, each.node in spares)
        place = next(gone, "") if role is Role.SPARE_USED else ""
        reason = reasons.get(each.node, "")
        stories.append(NodeStory(each.node, role, len(each.gpus), *_vetted(vetted.get(each.node, ())), reason, place))
    stories += [
        NodeStory(node, Role.REFUSED, 0, *_vetted(vetted.get(node, ())), reason)
        for node, reason in reasons.items()
        if node not in held
    ]
    return tuple(stories)


def _role(used: bool, refused: bool, spare: bool) -> Role:  # noqa: FBT001 - three facts of one node
    if refused:
        return Role.REFUSED
    if not used:
        return Role.SPARE_FREED
    return Role.SPARE_USED if spare else Role.USED


def _vetted(checks: Sequence[CheckResult]) -> tuple[int, tuple[str, ...]]:
    """Return how many checks passed, and what the others said."""
    passed = sum(1 for check in checks if check.status is Status.PASS)
    return passed, tuple(f"{check.check}: {check.reason}" for check in checks if check.status is not Status.PASS)


def never_collected(reader: Reader) -> tuple[str, ...]:
    """Return families without a row, and columns of the others that are null in every row."""
    return tuple(name for family in _SAMPLED for name in _absent(reader, family))


def _absent(reader: Reader, family: str) -> Iterator[str]:
    columns = FAMILIES[family].names
    counts = ", ".join(f'count("{column}")' for column in columns)
    row = reader.database.execute(f'SELECT count(*), {counts} FROM "{family}"').fetchall()[0]  # noqa: S608 - known names
    if not row[0]:
        yield f"{family} (no sample at all)"
        return
    yield from (f"{family}.{column}" for column, count in zip(columns, row[1:], strict=True) if not count)


def _bounded(reader: Reader, job: JobRecord) -> JobRecord:
    """Give a job that has not ended, or whose end is unknown, the time of its samples, so that quality has a frame."""
    span = _sampled(reader)
    if span is None:
        return job
    period_ns = round((job.sample_interval_s or 1.0) * 1e9)
    return replace(
        job,
        sample_interval_s=job.sample_interval_s or 1.0,
        program_started_ns=span.start_ns if job.program_started_ns is None else job.program_started_ns,
        program_ended_ns=span.end_ns + period_ns if job.program_ended_ns is None else job.program_ended_ns,
    )


def _sampled(reader: Reader) -> Interval | None:
    first, last = reader.database.execute(
        "SELECT min(time_ns), max(time_ns) FROM (SELECT time_ns FROM gpu UNION ALL SELECT time_ns FROM host)"
    ).fetchall()[0]
    return None if first is None else Interval(int(first), int(last))
