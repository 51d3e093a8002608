"""Data quality: what share of the expected samples is there, and where the holes are. Nothing is interpolated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from piolet.core.nouns import Interval
from piolet.logbook.reader import Reader
from piolet.logbook.records import JobRecord
from piolet.logbook.schema import NOT_APPLICABLE

GAP_PERIODS = 3
"""A hole longer than this many sampling periods is a gap; shorter ones are jitter."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a family one node recorded while the program ran (`expected`), at one sample in `period_s` seconds.

    `samples` are those that are there, `gaps` the holes long enough to name.
    """

    node: str
    family: str
    expected: Interval
    period_s: float
    samples: int
    gaps: tuple[Interval, ...]

    @property
    def expected_samples(self) -> int:
        """How many samples fit into the expected interval."""
        return int(self.expected.duration_s / self.period_s)

    @property
    def missing_s(self) -> float:
        """The samples that are not there, in seconds; short holes count as well as gaps."""
        return max(0, self.expected_samples - self.samples) * self.period_s

    @property
    def coverage_ratio(self) -> float:
        """Share of the expected samples that is there, 0..1."""
        return min(1.0, self.samples / self.expected_samples) if self.expected_samples else 1.0


@dataclass(frozen=True, slots=True)
class Quality:
    """The data quality of a logbook: coverage per node and family, agent events, unreadable segments.

    unavailable      (node, collector, why) of sources that failed at some time
    not_applicable   collectors whose source is not there at all, such as Lustre on a laptop, and on how many nodes
    """

    coverage: tuple[Coverage, ...]
    agent_restarts: tuple[tuple[str, int], ...]
    unavailable: tuple[tuple[str, str, str], ...]
    not_applicable: tuple[str, ...]
    torn: tuple[Path, ...]


def assess(reader: Reader, job: JobRecord, families: Sequence[str] = ("gpu", "host")) -> Quality:
    """Assess the logbook against what `job` says was allocated and when the program ran."""
    return Quality(
        coverage=tuple(_coverage(reader, job, families)),
        agent_restarts=_restarts(reader),
        unavailable=unavailable(reader),
        not_applicable=not_applicable(reader),
        torn=reader.torn,
    )


def _coverage(reader: Reader, job: JobRecord, families: Sequence[str]) -> list[Coverage]:
    if job.program_started_ns is None or job.program_ended_ns is None or job.sample_interval_s is None:
        return []
    expected = Interval(job.program_started_ns, job.program_ended_ns)
    used = [held for held in job.allocation if held.used]
    periods_s = {family: job.period_s(family) or job.sample_interval_s for family in families}
    found = {family: samples(reader.database, family, expected, period_s) for family, period_s in periods_s.items()}
    return [
        Coverage(held.node, family, expected, period_s, *found[family].get(held.node, _nothing(expected, period_s)))
        for held in used
        for family, period_s in periods_s.items()
        if family != "gpu" or held.gpus
    ]


def _nothing(expected: Interval, period_s: float) -> tuple[int, tuple[Interval, ...]]:
    return 0, (expected,) if expected.duration_s > (GAP_PERIODS - 1) * period_s else ()


def samples(
    database: duckdb.DuckDBPyConnection, family: str, expected: Interval, period_s: float
) -> dict[str, tuple[int, tuple[Interval, ...]]]:
    """Return of each node with a sample how many there are in the expected time, and the holes between them.

    A hole is longer than GAP_PERIODS periods. The ends count: a node that joined late or left early has one there. It
    begins one period after the last sample, since that is when the next one was due.
    """
    period_ns = round(period_s * 1e9)
    found = database.execute(
        f"""
        WITH times AS (
            SELECT DISTINCT node, time_ns FROM "{family}" WHERE time_ns >= $start - $period AND time_ns < $end
        ), edges AS (
            SELECT * FROM times UNION ALL SELECT DISTINCT node, $end FROM times
        ), steps AS (
            SELECT node, time_ns, lag(time_ns, 1, $start - $period) OVER (PARTITION BY node ORDER BY time_ns) AS before
            FROM edges
        )
        SELECT node, count(*) FILTER (time_ns >= $start AND time_ns < $end),
            list((before, time_ns) ORDER BY time_ns) FILTER (time_ns - before > $longest)
        FROM steps GROUP BY node
        """,  # noqa: S608 - known families
        {
            "start": expected.start_ns,
            "end": expected.end_ns,
            "period": period_ns,
            "longest": GAP_PERIODS * period_ns,
        },
    ).fetchall()
    return {
        node: (
            count,
            tuple(Interval(max(before + period_ns, expected.start_ns), after) for before, after in steps or ()),
        )
        for node, count, steps in found
    }


def _restarts(reader: Reader) -> tuple[tuple[str, int], ...]:
    rows = reader.database.execute(
        "SELECT node, count(*) FROM events WHERE kind = 'agent' AND code = 'restart' GROUP BY 1 ORDER BY 1"
    ).fetchall()
    return tuple((str(node), int(count)) for node, count in rows)


def unavailable(reader: Reader) -> tuple[tuple[str, str, str], ...]:
    """Return (node, collector, why) of every source that failed at some time."""
    rows = reader.database.execute(
        "SELECT DISTINCT node, split_part(message, ': ', 1), substr(message, instr(message, ': ') + 2) "
        "FROM events WHERE kind = 'collector' AND code = 'unavailable' ORDER BY ALL"
    ).fetchall()
    return tuple((str(node), str(source), str(why)) for node, source, why in rows)


def not_applicable(reader: Reader) -> tuple[str, ...]:
    """Return the collectors that had nothing to read, each as ``cgroup (64 nodes)``."""
    rows = reader.database.execute(
        "SELECT split_part(message, ': ', 1), count(DISTINCT node) "
        "FROM events WHERE kind = 'collector' AND code = ? GROUP BY 1 ORDER BY 1",
        [NOT_APPLICABLE],
    ).fetchall()
    return tuple(f"{source} ({nodes} node{'s' if nodes > 1 else ''})" for source, nodes in rows)
