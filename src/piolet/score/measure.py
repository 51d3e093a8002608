"""What DuckDB computes from the samples: one table of GPU-seconds, and sums over it.

`prepare` makes two temporary tables in the reader's database, `allocated` (one row a GPU, with its ceilings) and
`seconds` (one row per GPU and second, with the saturations of piolet.score.model). Everything else reads those.
Samples of one second are averaged first, so the score does not depend on the sampling rate. A ratio outside 0..1 is a
blank that some source did not mark: it is missing, not a value. Rows of GPUs that the job was not given are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from piolet.core.nouns import Gpu
from piolet.logbook.quality import GAP_PERIODS
from piolet.logbook.reader import Reader
from piolet.logbook.records import JobRecord
from piolet.score.ceilings import KEYS, PIPES, of_model

THROTTLE_MASK = 0x8 | 0x20 | 0x40 | 0x80
"""NVML's clocks-event reasons that mean trouble: hardware slowdown, software and hardware thermal, power brake."""


@dataclass(frozen=True, slots=True)
class Window:
    """The time that is scored, and the width of a bin: one second, or the sampling period if that is longer.

    `doubled` counts the samples that shared their GPU and bin with another where one was due.
    """

    start_ns: int
    end_ns: int
    bin_s: float
    doubled: int = 0

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


def prepare(reader: Reader, job: JobRecord) -> Window | None:
    """Make the tables and return the window that they cover, None if there is no GPU sample to score."""
    window = window_of(reader, job)
    if window is None:
        return None
    allocate(reader.database, job.gpus or seen(reader.database))
    often = (job.period_s("gpu") or 0.0) < window.bin_s
    reader.database.execute(_seconds(window, average=often))
    doubled = 0 if often else _doubled(reader)
    if doubled:
        reader.database.execute(_seconds(window, average=True))
    return replace(window, doubled=doubled)


def _doubled(reader: Reader) -> int:
    found = reader.database.execute(
        "SELECT (SELECT count(*) FROM seconds) - (SELECT count(*) FROM (SELECT DISTINCT id, bin FROM seconds))"
    ).fetchall()
    return int(found[0][0])


def rows(reader: Reader, query: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the answer to `query`, each row keyed by column name."""
    found = reader.database.execute(query, parameters or {})
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def window_of(reader: Reader, job: JobRecord) -> Window | None:
    """Return the program's own time; where job.json does not know it yet, that of the samples. None without samples."""
    first, last, count = reader.database.execute("SELECT min(time_ns), max(time_ns), count(*) FROM gpu").fetchall()[0]
    if not count:
        return None
    period_s = job.period_s("gpu") or 1.0
    start_ns = int(first) if job.program_started_ns is None else job.program_started_ns
    end_ns = int(last) + round(period_s * 1e9) if job.program_ended_ns is None else job.program_ended_ns
    return Window(start_ns, end_ns, max(1.0, period_s)) if end_ns > start_ns else None


def seen(database: duckdb.DuckDBPyConnection) -> list[tuple[str, Gpu]]:
    """Return the GPUs that have samples, for a job that does not say which it was given."""
    found = database.execute("SELECT DISTINCT node, gpu, uuid FROM gpu ORDER BY ALL").fetchall()
    return [(str(node), Gpu(int(index or 0), str(uuid or ""))) for node, index, uuid in found]


def allocate(database: duckdb.DuckDBPyConnection, gpus: Sequence[tuple[str, Gpu]]) -> None:
    """Make the table `allocated`, numbered as `gpus` are, and the macros of `samples`."""
    for macro in _MACROS:
        database.execute(f"CREATE OR REPLACE TEMP MACRO {macro}")
    columns = ", ".join(f'"{key}" DOUBLE' for key in KEYS)
    database.execute(
        "CREATE OR REPLACE TEMP TABLE allocated "
        f"(id INTEGER, node VARCHAR, gpu INTEGER, uuid VARCHAR, model VARCHAR, key VARCHAR, {columns})"
    )
    ceilings = {model: of_model(model) for model in {gpu.model for _, gpu in gpus}}
    table = [
        (
            *(number, node, gpu.index, gpu.uuid, gpu.model, gpu.uuid or f"{node}:{gpu.index}"),
            *(ceilings[gpu.model][key] for key in KEYS),
        )
        for number, (node, gpu) in enumerate(gpus)
    ]
    if table:
        marks = ", ".join("unnest(?)" for _ in table[0])
        database.execute(
            f"INSERT INTO allocated SELECT {marks}",
            [list(column) for column in zip(*table, strict=True)],
        )


_MACROS = (
    "as_ratio(x) AS CASE WHEN x BETWEEN 0 AND 1.05 THEN least(x, 1)::FLOAT END",
    # greatest() and least() pass over nulls: a pipe that was not measured earns nothing and costs nothing, but a
    # missing value must not become a one.
    "capped(x) AS CASE WHEN x IS NOT NULL THEN least(x, 1)::FLOAT END",
)


def _seconds(window: Window, *, average: bool) -> str:
    """Return the statement that makes `seconds`."""
    return f"CREATE OR REPLACE TEMP TABLE seconds AS {samples(window, average=average)}"


def samples(window: Window, *, average: bool, more: str = "") -> str:
    """Return the query of all GPU-seconds with their saturations, over `gpu` and `allocated`.

    To `average` samples of one second costs as much as all the rest. `more` are further columns of `gpu` (AS a name).
    """
    period_ns = round(window.bin_s * 1e9)
    avg, most, least, bits = ("avg", "max", "min", "bit_or") if average else ("", "", "", "")
    pipes = ", ".join(f"{avg}(as_ratio(g.{pipe}_active_ratio)) AS {pipe}" for pipe in PIPES)
    highest_pipe = ", ".join(f"m.{pipe} / a.{pipe}" for pipe in PIPES)
    return f"""
    WITH means AS (
        SELECT a.id, g.time_ns // {period_ns} AS bin, {least}(g.time_ns) AS time_ns, {pipes},
            {avg}(as_ratio(g.dram_active_ratio)) AS dram,
            {avg}(as_ratio(g.sm_active_ratio)) AS sm,
            {avg}(as_ratio(g.gr_engine_active_ratio)) AS engine,
            {avg}(as_ratio(g.gpu_util_ratio)) AS util,
            {avg}(g.sm_clock_hz / nullif(g.sm_clock_max_hz, 0)::DOUBLE)::FLOAT AS clock,
            {avg}(greatest(g.nvlink_rx_bytes_per_s, g.nvlink_tx_bytes_per_s))::FLOAT AS nvlink,
            {avg}(greatest(g.pcie_rx_bytes_per_s, g.pcie_tx_bytes_per_s))::FLOAT AS pcie,
            {avg}(g.power_w)::FLOAT AS power_w, {most}(g.temperature_c) AS temperature_c,
            {most}(g.energy_j) AS energy_j, {most}(g.memory_used_bytes) AS memory_used_bytes,
            {bits}(g.throttle_reasons) AS throttle{more}
        FROM gpu g JOIN allocated a
            ON a.node = g.node AND a.key = coalesce(nullif(g.uuid, ''), g.node || ':' || g.gpu)
        WHERE g.time_ns >= {window.start_ns - period_ns} AND g.time_ns < {window.end_ns + period_ns}
        {"GROUP BY ALL" if average else ""}
    ), saturations AS (
        SELECT m.* EXCLUDE (time_ns, fp32, fp16, nvlink),
            greatest(0, (m.time_ns - {window.start_ns}) / 1e9)::DOUBLE AS time_s,
            capped(greatest({highest_pipe}) * least(1, coalesce(m.clock, 1))) AS compute,
            capped(m.dram / a.dram) AS memory,
            capped(greatest(m.nvlink / a.nvlink_bytes_per_s, m.pcie / a.pcie_bytes_per_s)) AS network
        FROM means m JOIN allocated a USING (id)
    ), scored AS (
        SELECT *, CASE WHEN compute IS NOT NULL AND memory IS NOT NULL THEN greatest(compute, memory) END AS score
        FROM saturations
    )
    SELECT *, capped(greatest(coalesce(engine, util, sm), score)) AS busy FROM scored
    """  # noqa: S608 - numbers and known columns


_ACTIVITY = """
    avg(compute) FILTER (score IS NOT NULL) AS compute, avg(memory) FILTER (score IS NOT NULL) AS memory,
    avg(network) AS network, avg(busy) AS busy, avg(sm) AS sm, avg(engine) AS engine, avg(util) AS util,
    avg(tensor) AS tensor, avg(dram) AS dram, avg(fp64) AS fp64, avg(pcie) AS pcie, avg(power_w) AS power_w,
    quantile_cont(sm, 0.9) - quantile_cont(sm, 0.1) AS sm_pulse
"""
"""Means over GPU-seconds, as labels want them."""


def totals(reader: Reader, window: Window, from_s: float = 0.0) -> list[dict[str, Any]]:
    """Return sums and means per allocated GPU over its observed seconds since `from_s`, GPUs without any included."""
    return rows(
        reader,
        f"""
        WITH sums AS (
            SELECT id, count(score) * $bin_s AS observed_s, coalesce(sum(score), 0) * $bin_s AS saturated_s,
                coalesce(sum(busy) FILTER (score IS NOT NULL), 0) * $bin_s AS busy_s,
                coalesce(max(busy) FILTER (score IS NOT NULL), 0) AS peak_busy, {_ACTIVITY},
                avg(tensor * capped(clock)) FILTER (score IS NOT NULL) AS ofu, count(clock) AS clocks,
                max(temperature_c) AS temperature_c, max(memory_used_bytes) AS memory_used_bytes,
                count(*) FILTER (throttle & $mask != 0) * $bin_s AS throttled_s
            FROM seconds WHERE time_s >= $from_s GROUP BY id
        )
        SELECT a.id, a.node, a.gpu, a.uuid, a.model, coalesce(s.observed_s, 0) AS observed_s,
            coalesce(s.saturated_s, 0) AS saturated_s, coalesce(s.busy_s, 0) AS busy_s,
            coalesce(s.peak_busy, 0) AS peak_busy, coalesce(s.clocks, 0) AS clocks,
            coalesce(s.throttled_s, 0) AS throttled_s,
            s.* EXCLUDE (id, observed_s, saturated_s, busy_s, peak_busy, clocks, throttled_s)
        FROM allocated a LEFT JOIN sums s USING (id) ORDER BY a.id
        """,  # noqa: S608 - our own columns
        {"bin_s": window.bin_s, "mask": THROTTLE_MASK, "from_s": from_s},
    )


@dataclass(frozen=True, slots=True)
class Steps:
    """What lies between the samples of a GPU: seconds missing, joules used (None: unknown), resets of its counters."""

    missing_s: float
    energy_j: float | None
    resets: int


def steps(reader: Reader, window: Window) -> dict[int, Steps]:
    """Return the steps per GPU id that has samples.

    Gaps longer than GAP_PERIODS between scored seconds count as missing, and so do those at the ends. An energy counter
    that falls was reset, and counts on from there.
    """
    found = rows(
        reader,
        """
        WITH stepped AS (
            SELECT id, time_s, score, energy_j - lag(energy_j IGNORE NULLS) OVER one AS joules,
                CASE WHEN score IS NOT NULL THEN time_s
                    - lag(CASE WHEN score IS NOT NULL THEN time_s END, 1, -$period IGNORE NULLS) OVER one END AS step
            FROM seconds WINDOW one AS (PARTITION BY id ORDER BY time_s)
        )
        SELECT id, coalesce(sum(step - $period) FILTER (step > $longest), 0) AS inside_s,
            $end - max(time_s) FILTER (score IS NOT NULL) AS after_s,
            CASE WHEN count(joules) > 0 THEN coalesce(sum(joules) FILTER (joules > 0), 0)::DOUBLE END AS energy_j,
            count(*) FILTER (joules < 0) AS resets
        FROM stepped GROUP BY id
        """,
        {"period": window.bin_s, "longest": GAP_PERIODS * window.bin_s, "end": window.duration_s},
    )
    return {row["id"]: Steps(_missing_s(row, window), row["energy_j"], row["resets"]) for row in found}


def _missing_s(row: Mapping[str, Any], window: Window) -> float:
    after_s: float | None = row["after_s"]
    if after_s is None:
        return window.duration_s
    return float(row["inside_s"]) + (after_s - window.bin_s if after_s > GAP_PERIODS * window.bin_s else 0.0)


def each_second(reader: Reader, *names: str) -> list[tuple[float, ...]]:
    """Return (seconds since start, means over the GPUs of the columns `names`) of each scored bin, in order."""
    means = "".join(f", avg({name})" for name in names)
    query = f"SELECT min(time_s){means} FROM seconds WHERE score IS NOT NULL GROUP BY bin ORDER BY bin"  # noqa: S608 - ours
    return [tuple(map(float, row)) for row in reader.database.execute(query).fetchall()]


def by_phase(reader: Reader, window: Window, starts_s: Sequence[float]) -> list[dict[str, Any]]:
    """Return means over the GPU-seconds and hosts of each phase that has scored seconds; phases begin at `starts_s`.

    `number` counts from 0; `write_bytes_per_s` is what all nodes together wrote to file systems or disks.
    """
    reader.database.execute(
        "CREATE OR REPLACE TEMP TABLE phases AS SELECT unnest(?) AS number, unnest(?)::DOUBLE AS from_s",
        [list(range(len(starts_s))), list(starts_s)],
    )
    return rows(
        reader,
        f"""
        WITH placed AS (
            SELECT bin, number FROM (SELECT bin, min(time_s) AS time_s FROM seconds GROUP BY bin)
            ASOF JOIN phases ON time_s >= from_s
        ), gpus AS (
            SELECT number, avg(score) AS score, {_ACTIVITY} FROM seconds JOIN placed USING (bin) GROUP BY number
        ), hosts AS (
            SELECT number, avg(cpu_busy) AS cpu_busy, avg(iowait) AS iowait, avg(io_pressure) AS io_pressure,
                avg(disk) AS disk
            FROM ({_HOST_SECONDS}) ASOF JOIN phases ON time_s >= from_s GROUP BY number
        ), files AS (
            SELECT number, avg(written) AS written
            FROM (
                SELECT (time_ns // 1000000000 * 1000000000 - $start) / 1e9 AS time_s,
                    sum(write_bytes_per_s) AS written FROM fs WHERE write_bytes_per_s IS NOT NULL GROUP BY ALL
            ) ASOF JOIN phases ON time_s >= from_s GROUP BY number
        )
        SELECT gpus.*, cpu_busy, iowait, io_pressure, greatest(written, disk) AS write_bytes_per_s
        FROM gpus LEFT JOIN hosts USING (number) LEFT JOIN files USING (number)
        WHERE score IS NOT NULL ORDER BY number
        """,  # noqa: S608 - our own columns
        {"start": window.start_ns},
    )


_HOST_SECONDS = """
    SELECT (time_ns // 1000000000 * 1000000000 - $start) / 1e9 AS time_s, avg(cpu_busy_ratio) AS cpu_busy,
        avg(cpu_iowait_ratio) AS iowait, avg(io_pressure_ratio) AS io_pressure, sum(disk_write_bytes_per_s) AS disk
    FROM host GROUP BY ALL
"""


def told_phases(reader: Reader, window: Window) -> list[tuple[float, str]]:
    """Return (seconds since start, name) of each change of phase that the program told."""
    found = reader.database.execute(
        "SELECT (time_ns - $start) / 1e9, coalesce(code, message, '') FROM events "
        "WHERE kind = 'phase' AND time_ns < $end ORDER BY time_ns",
        {"start": window.start_ns, "end": window.end_ns},
    ).fetchall()
    return [(max(0.0, float(time_s)), str(name)) for time_s, name in found]


def host_means(reader: Reader) -> dict[str, dict[str, Any]]:
    """Return the means of the host columns that labels look at, by node."""
    found = rows(
        reader,
        """
        SELECT node, avg(cpu_busy_ratio) AS cpu_busy, avg(cpu_iowait_ratio) AS iowait,
            avg(io_pressure_ratio) AS io_pressure FROM host GROUP BY node
        """,
    )
    return {str(row["node"]): row for row in found}
