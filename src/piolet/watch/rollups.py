"""Roll-ups: what all jobs of a cluster did, minute by minute and hour by hour, small enough to ask a month at once.

    <root>/<cluster>/rollup/<family>_<width>/<day>.parquet

A file has the jobs that ended on a day (UTC) and is written once, after that day. Each row has the mean of a column
under its own name, its lowest and highest as `_low` and `_high`, and how many samples are behind them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb

from piolet.core.errors import storage_errors
from piolet.core.files import replacing
from piolet.logbook.merging import quoted
from piolet.logbook.reader import rereading
from piolet.logbook.schema import FAMILIES
from piolet.watch.archive import JobFilter, VisibleJobs
from piolet.watch.diagnosis.case import THERMAL_BITS
from piolet.watch.jobs import JobSummary
from piolet.watch.series import SECOND_NS, Metric, value

WIDTHS_S = {"1m": 60, "1h": 3600}
KEYS = {"gpu": ("node", "gpu"), "host": ("node",)}
COLUMNS = {
    "gpu": (
        "sm_active_ratio",
        "tensor_active_ratio",
        "dram_active_ratio",
        "gr_engine_active_ratio",
        "power_w",
        "temperature_c",
        "sm_clock_hz",
        "memory_used_bytes",
        "nvlink_rx_bytes_per_s",
    ),
    "host": (
        "cpu_busy_ratio",
        "cpu_iowait_ratio",
        "io_pressure_ratio",
        "memory_used_bytes",
        "net_rx_bytes_per_s",
        "net_tx_bytes_per_s",
        "disk_read_bytes_per_s",
        "disk_write_bytes_per_s",
    ),
}
JOB = (("job", "VARCHAR"), ("user_name", "VARCHAR"), ("account", "VARCHAR"))
_MODE = 0o600
"""The jobs of everybody are in one file."""

_MOST_JOBS = 1_000_000


@dataclass(frozen=True, slots=True)
class Rollup:
    """A table of roll-ups, such as `gpu_1h`."""

    family: str
    width: str

    @property
    def name(self) -> str:
        """The name of the table and of its directory."""
        return f"{self.family}_{self.width}"

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """Every column with its SQL type."""
        kinds = {column.name: column.kind for column in FAMILIES[self.family].columns}
        keys = tuple((key, kinds[key]) for key in KEYS[self.family])
        values = tuple((f"{name}{end}", "DOUBLE") for name in COLUMNS[self.family] for end in ("", "_low", "_high"))
        extra = (("throttled_ratio", "DOUBLE"),) if self.family == "gpu" else ()
        return (*JOB, ("time_ns", "BIGINT"), *keys, ("samples", "BIGINT"), *values, *extra)

    def statement(self, job: JobSummary) -> str:
        """Return the query of the rows of a job, over its logbook's views."""
        width_ns = WIDTHS_S[self.width] * SECOND_NS
        owner = (job.job_id, job.user, job.account)
        told = [f"'{_escaped(text)}' AS {name}" for text, (name, _) in zip(owner, JOB, strict=True)]
        values = [
            f"CAST({how}({value(Metric(self.family, name))}) AS DOUBLE) AS {name}{end}"
            for name in COLUMNS[self.family]
            for how, end in (("avg", ""), ("min", "_low"), ("max", "_high"))
        ]
        extra = [f"avg(CAST(throttle_reasons & {THERMAL_BITS} != 0 AS INTEGER)) AS throttled_ratio"]
        columns = ", ".join(
            (
                *told,
                f"time_ns // {width_ns} * {width_ns} AS time_ns",
                *KEYS[self.family],
                "count(*) AS samples",
                *values,
                *(extra if self.family == "gpu" else ()),
            )
        )
        return f'SELECT {columns} FROM "{self.family}" GROUP BY ALL'  # noqa: S608 - known names, quoted texts


ROLLUPS = tuple(Rollup(family, width) for family in COLUMNS for width in WIDTHS_S)


def missing_days(root: Path, cluster: str, days: int, today: date) -> Iterator[date]:
    """Yield those of the last `days` days before `today` that were not rolled up, the oldest first."""
    for back in range(days, 0, -1):
        day = today - timedelta(days=back)
        if not all(_file(root, cluster, each, day).exists() for each in ROLLUPS):
            yield day


def write(root: Path, cluster: str, day: date, jobs: VisibleJobs) -> int:
    """Write the roll-ups of a day and return how many jobs they have; no file for a day without one.

    Raises:
        StorageError: the file system refused; there is no new file.
    """
    ended = list(_ended(jobs, cluster, day))
    with tempfile.TemporaryDirectory() as scratch:
        for number, job in enumerate(ended):
            _write_job(jobs, job, Path(scratch), number)
        for each in ROLLUPS if ended else ():
            _join(Path(scratch) / each.name, _file(root, cluster, each, day))
    return len(ended)


def _ended(jobs: VisibleJobs, cluster: str, day: date) -> Iterator[JobSummary]:
    start_ns = round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * SECOND_NS
    end_ns = start_ns + 86400 * SECOND_NS
    wanted = JobFilter(cluster=cluster, since_ns=start_ns, until_ns=end_ns)
    for job in jobs.find(wanted, most=_MOST_JOBS).jobs:
        if job.recorded and job.ended_ns is not None and start_ns <= job.ended_ns < end_ns:
            yield job


@rereading
def _write_job(jobs: VisibleJobs, job: JobSummary, scratch: Path, number: int) -> None:
    with jobs.open(job.cluster, job.job_id) as book:
        for each in ROLLUPS:
            path = scratch / each.name / f"{number}.parquet"
            path.parent.mkdir(exist_ok=True)
            book.reader.database.execute(f"COPY ({each.statement(job)}) TO {quoted(path)} (FORMAT parquet)")


def _join(parts: Path, path: Path) -> None:
    with storage_errors(path, "write the roll-up"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, duckdb.connect() as database:
        database.execute(
            f"COPY (SELECT * FROM read_parquet({quoted(parts / '*.parquet')}) ORDER BY node, time_ns) "  # noqa: S608 - quoted
            f"TO {quoted(partial)} (FORMAT parquet, COMPRESSION zstd)"
        )
        partial.chmod(_MODE)


def _file(root: Path, cluster: str, each: Rollup, day: date) -> Path:
    return root / cluster / "rollup" / each.name / f"{day.isoformat()}.parquet"


def _escaped(text: str) -> str:
    return text.replace("'", "''")
