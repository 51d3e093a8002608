"""How often nodes fail, as logbooks or the fleet's ledger have seen it. Here, since no capability knows another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piolet.core.errors import ParseError, StorageError, UsageError
from piolet.core.text import plural
from piolet.logbook.layout import Logbook
from piolet.logbook.records import Domain, JobRecord, Outcome, read_job, read_outcome

if TYPE_CHECKING:  # SQL is for those who have a fleet
    from piolet.fleet.ledger import Entry

HOUR_NS = 3_600_000_000_000
LEAST_FAILURES = 3
"""Fewer tell no rate: of three the 90 % interval is already from a quarter to twice and a half of it."""
_APART_NS = HOUR_NS
"""What is seen on a node within an hour of its last failure is the same failure."""


@dataclass(frozen=True, slots=True)
class FailureRate:
    """Failures of nodes in hours of nodes, and where that was seen."""

    failures: int
    node_hours: float
    source: str

    @property
    def node_mtbf_s(self) -> float:
        """Mean time between failures of one node, in seconds.

        Raises:
            UsageError: too few were seen.
        """
        if self.failures < LEAST_FAILURES:
            raise UsageError(
                f"{plural(self.failures, 'failure')} in {self.node_hours:.0f} node hours tell no rate",
                where=self.source,
                remedy="give --node-mtbf-hours, or look where more was seen (--failures fleet)",
            )
        return self.node_hours * 3600 / self.failures


def of_jobs(jobs: Iterable[tuple[JobRecord, Outcome | None]], source: str) -> FailureRate:
    """Return the rate that jobs have met: those that the infrastructure ended, over the hours of their nodes."""
    failures, hours = 0, 0.0
    for job, outcome in jobs:
        if job.program_started_ns is None or job.program_ended_ns is None:
            continue
        used = sum(held.used for held in job.allocation)
        hours += used * (job.program_ended_ns - job.program_started_ns) / HOUR_NS
        failures += outcome is not None and outcome.domain is Domain.INFRASTRUCTURE
    return FailureRate(failures, hours, source)


def of_ledger(entries: Sequence[Entry], source: str) -> FailureRate:
    """Return the rate that the fleet has seen: failures of nodes, over the time of its ledger times its nodes."""
    from piolet.fleet.evidence import Evidence  # noqa: PLC0415 - SQL is for those who have a fleet

    seen = sorted(
        (each.content for each in entries if isinstance(each.content, Evidence) and each.content.node),
        key=lambda one: one.time_ns,
    )
    last: dict[str, int] = {}
    failures = 0
    for one in seen:
        if one.failed:
            failures += one.time_ns - last.get(one.node, -2 * _APART_NS) > _APART_NS
            last[one.node] = one.time_ns
    span_ns = seen[-1].time_ns - seen[0].time_ns if seen else 0
    return FailureRate(failures, len({one.node for one in seen}) * span_ns / HOUR_NS, source)


def of_logbooks(logbooks: Iterable[Logbook], source: str) -> FailureRate:
    """Return the rate of the jobs of these logbooks; those that cannot be read are left out."""
    return of_jobs((found for each in logbooks for found in _records(each)), source)


def _records(logbook: Logbook) -> Iterator[tuple[JobRecord, Outcome | None]]:
    with suppress(ParseError, StorageError):
        yield read_job(logbook.job), read_outcome(logbook.outcome)
