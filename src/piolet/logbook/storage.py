"""What a job did with storage: bytes and operations a mount, small reads, checkpoints, and time lost waiting for it.

Figures only, of what was recorded; what was not is None. Who judges them is elsewhere.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from piolet.core.errors import UsageError
from piolet.core.nouns import Interval
from piolet.logbook.layout import Logbook
from piolet.logbook.reader import Reader, read, rereading
from piolet.logbook.records import JobRecord, read_job

SECOND_NS = 1_000_000_000
SMALL_BYTES = 1 << 20
"""A read below it is small: less than a stripe of Lustre."""

WAITING = 0.25
"""A node waits for storage in a second of which its tasks did so for this share (PSI io, or CPUs idle for I/O)."""

IDLE = 0.5
"""GPUs idle in a second in which they do less than this share of what they usually do."""


@dataclass(frozen=True, slots=True)
class MountUse:
    """One mount or local disk over the job, all nodes together.

    `small_read_share` is the share of the reads that were made in samples whose mean read was small, a peak what all
    nodes moved together at one moment.
    """

    fs: str
    kind: str
    nodes: int
    read_bytes: float
    write_bytes: float
    read_ops: float
    small_read_share: float | None
    mean_read_bytes: float | None
    metadata_ops: float
    read_latency_s: float | None
    write_latency_s: float | None
    peak_read_bytes_per_s: float
    peak_write_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The phases that the program called checkpoints: how many, how long, their share of the time, what was written."""

    count: int
    median_s: float
    longest_s: float
    share: float
    write_bytes: float | None


@dataclass(frozen=True, slots=True)
class JobStorage:
    """A job's storage over `duration_s`.

    `stall_s`: seconds, of a node on average and outside of checkpoints, in which it waited while its GPUs idled.
    """

    duration_s: float
    mounts: tuple[MountUse, ...]
    checkpoints: Checkpoints | None
    stall_s: float | None

    @property
    def stall_share(self) -> float | None:
        """The stalled share of the time."""
        return None if self.stall_s is None else self.stall_s / self.duration_s


@rereading
def of_logbook(logbook: Logbook) -> tuple[JobRecord, JobStorage]:
    """Return the job of a logbook, and its figures while the program ran, or until the newest sample.

    Raises:
        UsageError: the program has not begun, or nothing was recorded.
    """
    job = read_job(logbook.job)
    with read(logbook) as reader:
        found = of_reader(reader, job)
    if found is None:
        raise UsageError("nothing was recorded yet", where=str(logbook.path), remedy="run with --record, or wait")
    return job, found


def of_reader(reader: Reader, job: JobRecord) -> JobStorage | None:
    """Return the figures of an open logbook; None if the program has not begun, or nothing was recorded."""
    begin, end = job.program_started_ns, job.program_ended_ns or _newest_ns(reader)
    if begin is None or end is None or end <= begin:
        return None
    return job_storage(reader, Interval(begin, end), job.period_s("fs") or 1.0)


def _newest_ns(reader: Reader) -> int | None:
    [(newest,)] = reader.database.execute(
        """
        SELECT max(time_ns) FROM
            (SELECT time_ns FROM gpu UNION ALL SELECT time_ns FROM host UNION ALL SELECT time_ns FROM fs)
        """
    ).fetchall()
    return None if newest is None else int(newest)


def job_storage(reader: Reader, interval: Interval, period_s: float = 1.0) -> JobStorage:
    """Return the figures of the job in `reader` over `interval`; samples are `period_s` seconds apart."""
    phases = _checkpoint_phases(reader, interval)
    return JobStorage(
        interval.duration_s,
        _mounts(reader, interval, period_s),
        _checkpoints(reader, interval, phases, period_s),
        _stall_s(reader, interval, phases),
    )


_SAMPLES = """
    WITH samples AS (
        SELECT *, least(
            coalesce((time_ns - lag(time_ns) OVER (PARTITION BY node, fs ORDER BY time_ns)) / 1e9, $period),
            3 * $period
        ) AS seconds
        FROM fs WHERE time_ns >= $begin AND time_ns < $end
    )
"""
"""A sample stands for the time since the one before, but for no more than three periods."""


def _mounts(reader: Reader, interval: Interval, period_s: float) -> tuple[MountUse, ...]:
    rows = reader.database.execute(
        f"""
        {_SAMPLES}, peaks AS (
            SELECT fs, max(read) AS peak_read, max(write) AS peak_write FROM (
                SELECT fs, time_ns // (1000000000 * greatest(1, CAST(ceil($period) AS BIGINT))) AS bin,
                    sum(read_bytes_per_s) AS read, sum(write_bytes_per_s) AS write
                FROM samples GROUP BY ALL
            ) GROUP BY fs
        )
        SELECT fs, any_value(kind), count(DISTINCT node),
            coalesce(sum(read_bytes_per_s * seconds), 0), coalesce(sum(write_bytes_per_s * seconds), 0),
            coalesce(sum(read_ops_per_s * seconds), 0),
            coalesce(sum(read_ops_per_s * seconds) FILTER (read_bytes_per_s < {SMALL_BYTES} * read_ops_per_s), 0)
                / nullif(sum(read_ops_per_s * seconds), 0),
            sum(read_bytes_per_s * seconds) / nullif(sum(read_ops_per_s * seconds), 0),
            coalesce(sum(metadata_ops_per_s * seconds), 0),
            sum(read_latency_s * read_ops_per_s * seconds) / nullif(sum(read_ops_per_s * seconds)
                FILTER (read_latency_s IS NOT NULL), 0),
            sum(write_latency_s * write_ops_per_s * seconds) / nullif(sum(write_ops_per_s * seconds)
                FILTER (write_latency_s IS NOT NULL), 0),
            coalesce(any_value(peak_read), 0), coalesce(any_value(peak_write), 0)
        FROM samples JOIN peaks USING (fs) GROUP BY fs ORDER BY 4 + 5 DESC, fs
        """,  # noqa: S608 - constants
        {"begin": interval.start_ns, "end": interval.end_ns, "period": period_s},
    ).fetchall()
    return tuple(MountUse(*row) for row in rows)


def _checkpoint_phases(reader: Reader, interval: Interval) -> list[tuple[int, int]]:
    """Return begin and end of each; a phase ends where the next begins."""
    found = reader.database.execute(
        """
        WITH phases AS (
            SELECT code, time_ns, coalesce(lead(time_ns) OVER (ORDER BY time_ns), $end) AS until FROM events
            WHERE kind = 'phase' AND time_ns < $end
        )
        SELECT time_ns, until FROM phases WHERE code ILIKE '%checkpoint%' AND time_ns >= $begin ORDER BY 1
        """,
        {"begin": interval.start_ns, "end": interval.end_ns},
    )
    return found.fetchall()


def _checkpoints(
    reader: Reader, interval: Interval, phases: list[tuple[int, int]], period_s: float
) -> Checkpoints | None:
    if not phases:
        return None
    lengths = [(end - begin) / SECOND_NS for begin, end in phases]
    [(written,)] = reader.database.execute(
        f"""
        {_SAMPLES}
        SELECT sum(write_bytes_per_s * seconds) FROM samples
        WHERE list_bool_or([time_ns >= phase[1] AND time_ns < phase[2] FOR phase IN $phases])
        """,  # noqa: S608 - constants
        {
            "begin": interval.start_ns,
            "end": interval.end_ns,
            "period": period_s,
            "phases": [list(phase) for phase in phases],
        },
    ).fetchall()
    share = sum(lengths) / interval.duration_s
    return Checkpoints(len(phases), statistics.median(lengths), max(lengths), share, written)


def _stall_s(reader: Reader, interval: Interval, phases: list[tuple[int, int]]) -> float | None:
    [(stalled, nodes)] = reader.database.execute(
        f"""
        WITH waits AS (
            SELECT node, time_ns // 1000000000 AS bin,
                max(greatest(coalesce(io_pressure_ratio, 0), coalesce(cpu_iowait_ratio, 0))) AS waiting
            FROM host WHERE time_ns >= $begin AND time_ns < $end
                AND NOT coalesce(list_bool_or([time_ns >= phase[1] AND time_ns < phase[2] FOR phase IN $phases]), false)
            GROUP BY ALL
        ), works AS (
            SELECT node, time_ns // 1000000000 AS bin, avg(coalesce(sm_active_ratio, gr_engine_active_ratio,
                gpu_util_ratio)) AS active
            FROM gpu WHERE time_ns >= $begin AND time_ns < $end GROUP BY ALL
        ), usual AS (SELECT node, median(active) AS active FROM works GROUP BY node)
        SELECT count(*) FILTER (waits.waiting > {WAITING} AND works.active < {IDLE} * usual.active),
            count(DISTINCT node)
        FROM waits JOIN works USING (node, bin) JOIN usual USING (node)
        """,  # noqa: S608 - constants
        {"begin": interval.start_ns, "end": interval.end_ns, "phases": [list(phase) for phase in phases]},
    ).fetchall()
    return stalled / nodes if nodes else None
