"""One statement a project and month: what services reserved and used, what the gateway answered, what jobs took.

Hours of Kubernetes are requests x time, from the history of the repository: what each commit reserved, until the next
one. Those of Slurm are nodes and GPUs x time, from its accounting. Both end now, in a month that is not over.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from piolet.core.errors import UsageError
from piolet.service import estimating
from piolet.service.estimating import HOURS, Cost
from piolet.service.listing import Deployed
from piolet.service.platform import Project
from piolet.tools import git
from piolet.tools.slurm import tres
from piolet.tools.slurm.job import Job

NOTICE_DAYS = 30
"""Days before the end of a lease in which a statement says so."""

_WORKLOADS = ("deployment.yaml", "statefulset.yaml", "cronjob.yaml")
_MANIFESTS = (*_WORKLOADS, "persistentvolumeclaim.yaml", "horizontalpodautoscaler.yaml")
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Period:
    """A month, in Unix seconds; `until_s` is now if the month is not over."""

    name: str
    since_s: float
    until_s: float

    def hours(self, begin_s: float, end_s: float) -> float:
        """Return the hours between two times that are in the period."""
        return max(0.0, min(end_s, self.until_s) - max(begin_s, self.since_s)) / _HOUR_S


@dataclass(frozen=True, slots=True)
class Line:
    """What one service took, or all other jobs of the project; hours at least and at most where replicas may vary."""

    project: str
    service: str
    runs_on: str
    gpu_hours: float = 0
    gpu_hours_most: float = 0
    cpu_hours: float = 0
    cpu_hours_most: float = 0
    node_hours: float = 0
    gib_months: float = 0
    cpu_hours_used: float | None = None
    requests: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Statement:
    """The lines of a project, and what its people should know."""

    project: str
    month: str
    lines: tuple[Line, ...]
    warnings: tuple[str, ...]


def period(month: str, now: datetime) -> Period:
    """Return the month that ``2027-01`` names, or the present one if it is empty.

    Raises:
        UsageError: it names none, or one that has not begun.
    """
    name = month or f"{now:%Y-%m}"
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", name):
        raise UsageError(f'"{month}" is not a month', remedy="write it as 2027-01")
    begin = datetime.strptime(name, "%Y-%m").replace(tzinfo=UTC)
    if begin > now:
        raise UsageError(f"{name} has not begun", remedy=f"the newest month is {now:%Y-%m}")
    end = (begin + timedelta(days=32)).replace(day=1)
    return Period(name, begin.timestamp(), min(end, now).timestamp())


def reserved(clone: git.Clone, project: str, span: Period) -> Iterator[Line]:
    """Yield what each service of a project reserved on Kubernetes, from a clone with its history."""
    places = {path.parent for path in clone.paths(f"projects/{project}/*/*.yaml")}
    for place in sorted(places):
        changes = clone.commits(place)
        ends = [*(time_s for _, time_s in changes[1:]), float("inf")]
        line = Line(project, place.name, "kubernetes")
        for (commit, begin_s), end_s in zip(changes, ends, strict=True):
            hours = span.hours(begin_s, end_s)
            if hours:
                line = _added(line, _cost(clone, commit, place), hours)
        yield line


def of_jobs(jobs: Iterable[Job], project: str, span: Period) -> Iterator[Line]:
    """Yield what jobs took: those of each service on Slurm, and all others together."""
    lines: dict[str, Line] = {}
    for job in jobs:
        found = re.fullmatch(rf"{re.escape(project)}/([a-z][a-z0-9-]*)/\d+", job.name)
        name = found[1] if found else "(other jobs)"
        line = lines.get(name, Line(project, name, "slurm"))
        if job.start_ns is not None:
            end_s = job.end_ns / 1e9 if job.end_ns is not None else float("inf")
            hours = span.hours(job.start_ns / 1e9, end_s)
            lines[name] = _with(
                line,
                gpu_hours=tres.gpus(job.tres) * hours,
                gpu_hours_most=tres.gpus(job.tres) * hours,
                cpu_hours=job.tres.get("cpu", 0) * hours,
                cpu_hours_most=job.tres.get("cpu", 0) * hours,
                node_hours=(job.node_count or 0) * hours,
            )
    yield from (lines[name] for name in sorted(lines))


def statement(
    project: str, agreed: Project, span: Period, lines: Iterable[Line], leases: Iterable[Deployed]
) -> Statement:
    """Return the statement of a project, with what is over its budget or about to end."""
    found, today = tuple(lines), datetime.fromtimestamp(span.until_s, UTC).date()
    return Statement(project, span.name, found, (*_over_budget(agreed, found), *_ending(leases, today)))


def as_csv(statements: Iterable[Statement]) -> str:
    """Return all lines as CSV, the month first."""
    out = io.StringIO()
    names = [each.name for each in fields(Line)]
    writer = csv.DictWriter(out, ["month", *names], lineterminator="\n")
    writer.writeheader()
    for each in statements:
        writer.writerows({"month": each.month} | asdict(line) for line in each.lines)
    return out.getvalue()


def used_cpu_hours(
    ask: Callable[[str, float], list[dict[str, Any]]], prefix: str, span: Period
) -> Mapping[tuple[str, str], float]:
    """Return the processor-hours that containers really used, by project and service, as Prometheus tells.

    `ask` sends a query for a time in Unix seconds and returns the result. A service's container has its name.
    """
    seconds = max(1, round(span.until_s - span.since_s))
    series = f'container_cpu_usage_seconds_total{{namespace=~"{prefix}.+",container!=""}}'
    query = f"sum by (namespace, container) (increase({series}[{seconds}s])) / {_HOUR_S:.0f}"
    return {
        (each["metric"]["namespace"].removeprefix(prefix), each["metric"]["container"]): float(each["value"][1])
        for each in ask(query, span.until_s)
    }


def _cost(clone: git.Clone, commit: str, place: Path) -> Cost:
    """Return what a month of the manifests of one commit reserves; nothing where the service was not there."""
    texts = {name: clone.file(commit, place / name) for name in _MANIFESTS}
    objects = [each for text in texts.values() if text for each in yaml.safe_load_all(text)]
    return estimating.monthly(objects) if any(texts[name] for name in _WORKLOADS) else Cost((0, 0))


def _added(line: Line, cost: Cost, hours: float) -> Line:
    share = hours / HOURS
    return _with(
        line,
        gpu_hours=cost.gpu_hours[0] * share,
        gpu_hours_most=cost.gpu_hours[1] * share,
        cpu_hours=cost.cpu_hours[0] * share,
        cpu_hours_most=cost.cpu_hours[1] * share,
        gib_months=cost.storage_gib * share,
    )


def _with(line: Line, **more: float) -> Line:
    """Return the line with amounts added."""
    return Line(**asdict(line) | {name: getattr(line, name) + amount for name, amount in more.items()})


def _over_budget(agreed: Project, lines: tuple[Line, ...]) -> Iterator[str]:
    for what, budget in (("gpu_hours", agreed.gpu_hours_per_month), ("cpu_hours", agreed.cpu_hours_per_month)):
        taken = sum(getattr(line, what) for line in lines)
        if budget is not None and taken > budget:
            name = what.replace("gpu_hours", "GPU-hours").replace("cpu_hours", "CPU-hours")
            yield f"{taken:.1f} {name} of {budget:g} a month"


def _ending(leases: Iterable[Deployed], today: date) -> Iterator[str]:
    for each in leases:
        if each.expires and each.expires < today:
            yield f"the lease of {each.service} is over since {each.expires}"
        elif each.expires and each.expires <= today + timedelta(days=NOTICE_DAYS):
            yield f"the lease of {each.service} ends on {each.expires}"


def as_page(statements: Iterable[Statement]) -> str:
    """Return all statements as one self-contained page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - slow to import

    environment = Environment(
        loader=PackageLoader("piolet.service"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("statement.html.jinja").render(statements=list(statements))
