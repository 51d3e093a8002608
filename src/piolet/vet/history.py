"""What vetting found before: the results in the logbooks below a root, newest jobs first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import median

from piolet.core.errors import PioletError
from piolet.core.nouns import CheckResult, Status
from piolet.logbook import records
from piolet.logbook.layout import Logbook
from piolet.vet.protocol import PlannedCheck, Usual

JOBS = 500
"""Logbooks that are read at most: months of one user's jobs, and seconds to read."""


@dataclass(frozen=True, slots=True)
class Past:
    """A result of a job; `model` is that of the node's GPUs, empty where it had none."""

    job: str
    model: str
    result: CheckResult


def past(root: Path, jobs: int = JOBS) -> Iterator[Past]:
    """Yield the results of the latest `jobs` logbooks; what cannot be read is left out."""
    directories = sorted(root.glob("*/*/vet"), key=_time, reverse=True)
    for directory in islice(directories, jobs):
        logbook = Logbook(directory.parent)
        try:
            job, results = records.read_job(logbook.job), records.read_checks(directory)
        except PioletError:
            continue
        models = {held.node: held.gpus[0].model for held in job.allocation if held.gpus}
        for result in results:
            yield Past(job.job_id, models.get(result.node, ""), result)


def _time(directory: Path) -> float:
    try:
        return directory.stat().st_mtime
    except OSError:
        return 0.0


def remembered(checks: Sequence[PlannedCheck], found: Iterable[Past]) -> tuple[PlannedCheck, ...]:
    """Return the checks with what their values usually were, a model of GPU each, in those that compare with that.

    A value counts if its check had the same name and version, and passed.
    """
    values: dict[tuple[str, str, str], list[float]] = {}
    for each in found:
        result = each.result
        if result.status is Status.PASS and isinstance(result.value, int | float):
            values.setdefault((result.check, result.version.partition("/")[0], each.model), []).append(result.value)
    return tuple(_with_usual(check, values) for check in checks)


def _with_usual(check: PlannedCheck, values: dict[tuple[str, str, str], list[float]]) -> PlannedCheck:
    if check.criteria is None or check.criteria.history is None:
        return check
    usual = tuple(
        Usual.of(numbers, model)
        for (name, kind, model), numbers in sorted(values.items())
        if (name, kind) == (check.name, check.type)
    )
    return replace(check, criteria=replace(check.criteria, usual=usual))


@dataclass(frozen=True, slots=True)
class Record:
    """How often a type of check was done and found something, and the seconds that it takes (None: unknown)."""

    times: int = 0
    found: int = 0
    typical_s: float | None = None


def records_of(found: Iterable[Past]) -> dict[str, Record]:
    """Return the record of each type of check."""
    results: dict[str, list[CheckResult]] = {}
    for each in found:
        results.setdefault(each.result.version.partition("/")[0], []).append(each.result)
    return {
        kind: Record(len(all_), sum(each.status is Status.FAIL for each in all_), median(e.duration_s for e in all_))
        for kind, all_ in results.items()
    }
