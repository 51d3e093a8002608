"""Gathering what statements are made of: the repository's history, Slurm's accounting, the gateway, Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2

from piolet.core.errors import PioletError
from piolet.core.run import Runner
from piolet.service import accounting, publishing
from piolet.service.accounting import Line, Period, Statement
from piolet.service.listing import services
from piolet.service.platform import GitOps, Platform, Project
from piolet.tools.slurm import sacct

_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to ask beside the repository: the file of a gateway and the address of a Prometheus, if they are given."""

    gitops: GitOps
    gateway: Path | None = None
    prometheus: str = ""


def statements(platform: Platform, sources: Sources, month: str, now: datetime, runner: Runner) -> list[Statement]:
    """Return the statement of every project of the platform.

    Raises:
        UsageError: there is no such month.
        PioletError: a source that was given does not answer.
    """
    span = accounting.period(month, now)
    used = _used(platform, sources, span)
    answered = _answered(sources, span)
    found = []
    with publishing.cloned(sources.gitops, "", history=True) as clone:
        for name, agreed in sorted(platform.projects.items()):
            lines = [*accounting.reserved(clone, name, span), *_jobs(name, agreed, span, runner)]
            leases = services(clone.directory / "projects", name)
            joined = _joined(lines, name, used, answered)
            found.append(accounting.statement(name, agreed, span, joined, leases))
    return found


def _jobs(name: str, agreed: Project, span: Period, runner: Runner) -> Iterator[Line]:
    if agreed.slurm_account:
        jobs = sacct.of_account(runner, agreed.slurm_account, span.since_s, span.until_s)
        yield from accounting.of_jobs(jobs, name, span)


def _used(platform: Platform, sources: Sources, span: Period) -> dict[tuple[str, str], float]:
    if not sources.prometheus:
        return {}

    def ask(query: str, at_s: float) -> list[dict[str, Any]]:
        return query_prometheus(sources.prometheus, query, at_s)

    return dict(accounting.used_cpu_hours(ask, platform.namespace_prefix, span))


def query_prometheus(address: str, query: str, at_s: float) -> list[dict[str, Any]]:
    """Return the result of an instant query.

    Raises:
        PioletError: Prometheus does not answer, or refuses.
    """
    try:
        url = f"{address.rstrip('/')}/api/v1/query"
        answer = httpx2.get(url, params={"query": query, "time": at_s}, timeout=_TIMEOUT_S)
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
    except (httpx2.HTTPError, ValueError, KeyError) as error:
        raise PioletError(f"Prometheus does not answer: {error}", where=address, remedy="check --prometheus") from error
    return found


def _answered(sources: Sources, span: Period) -> dict[tuple[str, str], tuple[int, int]]:
    """Return requests and tokens by the project that pays, which is the key's, and the service."""
    if sources.gateway is None:
        return {}
    from piolet.service.gateway import settings, usage  # noqa: PLC0415 - slow to import

    gateway = settings.read(sources.gateway)
    path = sources.gateway.parent / gateway.usage
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for (month, key, service), used in usage.lines(usage.opened(path).engine).items():
        if month == span.name and key in gateway.keys:
            name = gateway.keys[key].project, service
            requests, tokens = found.get(name, (0, 0))
            found[name] = requests + used.requests, tokens + used.tokens.prompt + used.tokens.completion
    return found


def _joined(
    lines: Iterable[Line],
    project: str,
    used: dict[tuple[str, str], float],
    answered: dict[tuple[str, str], tuple[int, int]],
) -> Iterator[Line]:
    """Yield the lines with what was really used, and what the project asked of services through the gateway."""
    for line in lines:
        kubernetes = line.runs_on == "kubernetes"
        yield replace(line, cpu_hours_used=used.get((project, line.service)) if kubernetes else None)
    for (payer, service), (requests, tokens) in sorted(answered.items()):
        if payer == project:
            yield Line(project, service, "gateway", requests=requests, tokens=tokens)
