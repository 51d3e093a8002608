"""What DuckDB computes from the samples: one table of GPU-seconds, and sums over it.

`prepare` makes two temporary tables in the reader's database, `allocated` (one row a GPU, with its ceilings) and
`seconds` (one row per GPU and second, with the saturations of piolet.score.model). Everything else reads those.
Samples of one second are averaged first, so the score does not depend on the sampling rate. A ratio outside 0..1 is a
blank that some source did not mark: it is missing, not a value. Rows of GPUs that the job was not given are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from piolet.core.nouns import Gpu
from piolet.logbook.quality import GAP_PERIODS
from piolet.logbook.reader import Reader
from piolet.logbook.records import JobRecord
from piolet.score.ceilings import KEYS, PIPES, of_model

THROTTLE_MASK = 0x8 | 0x20 | 0x40 | 0x80
"""NVML's clocks-event reasons that mean trouble: hardware slowdown, software and hardware thermal, power brake."""


@dataclass(frozen=True, slots=True)
class Window:
    """The time that is scored, and the width of a bin: one second, or the sampling period if that is longer."""

    start_ns: int
    end_ns: int
    bin_s: float

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return (self.end_ns - self.start_ns) / 1e9


def prepare(reader: Reader, job: JobRecord) -> Window | None:
    """Make the tables and return the window that they cover, None if there is no GPU sample to score."""
    window = window_of(reader, job)
    if window is None:
        return None
    _allocate(reader, list(job.gpus) or _seen(reader))
    reader.database.execute(
        "CREATE OR REPLACE TEMP MACRO as_ratio(x) AS CASE WHEN x BETWEEN 0 AND 1.05 THEN least(x::DOUBLE, 1) END"
    )
    reader.database.execute("CREATE OR REPLACE TEMP MACRO capped(x) AS CASE WHEN x IS NOT NULL THEN least(x, 1) END")
    reader.database.execute(_seconds(window))
    return window


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
    period_s = job.sample_interval_s or 1.0
    start_ns = int(first) if job.program_started_ns is None else job.program_started_ns
    end_ns = int(last) + round(period_s * 1e9) if job.program_ended_ns is None else job.program_ended_ns
    return Window(start_ns, end_ns, max(1.0, period_s)) if end_ns > start_ns else None


def _seen(reader: Reader) -> list[tuple[str, Gpu]]:
    found = reader.database.execute("SELECT DISTINCT node, gpu, uuid FROM gpu ORDER BY ALL").fetchall()
    return [(str(node), Gpu(int(index or 0), str(uuid or ""))) for node, index, uuid in found]


def _allocate(reader: Reader, gpus: Sequence[tuple[str, Gpu]]) -> None:
    columns = ", ".join(f'"{key}" DOUBLE' for key in KEYS)
    reader.database.execute(
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
        reader.database.execute(
            f"INSERT INTO allocated SELECT {marks}",
            [list(column) for column in zip(*table, strict=True)],
        )


def _seconds(window: Window) -> str:
    period_ns = round(window.bin_s * 1e9)
    pipes = ", ".join(f"avg(as_ratio(g.{pipe}_active_ratio)) AS {pipe}" for pipe in PIPES)
    highest_pipe = ", ".join(f"m.{pipe} / a.{pipe}" for pipe in PIPES)
    # greatest() passes over nulls: a pipe that was not measured earns nothing and costs nothing. So does least(),
    # which would make a one of a missing value; hence capped().
    return f"""
    CREATE OR REPLACE TEMP TABLE seconds AS
    WITH means AS (
        SELECT a.id, g.time_ns // {period_ns} AS bin, min(g.time_ns) AS time_ns, {pipes},
            avg(as_ratio(g.dram_active_ratio)) AS dram,
            avg(as_ratio(g.sm_active_ratio)) AS sm,
            avg(as_ratio(g.gr_engine_active_ratio)) AS engine,
            avg(as_ratio(g.gpu_util_ratio)) AS util,
            avg(g.sm_clock_hz / nullif(g.sm_clock_max_hz, 0)::DOUBLE) AS clock,
            avg(greatest(g.nvlink_rx_bytes_per_s, g.nvlink_tx_bytes_per_s))::DOUBLE AS nvlink,
            avg(greatest(g.pcie_rx_bytes_per_s, g.pcie_tx_bytes_per_s))::DOUBLE AS pcie,
            avg(g.power_w)::DOUBLE AS power_w, max(g.temperature_c)::DOUBLE AS temperature_c,
            max(g.memory_used_bytes) AS memory_used_bytes, bit_or(g.throttle_reasons) AS throttle
        FROM gpu g JOIN allocated a
            ON a.node = g.node AND a.key = coalesce(nullif(g.uuid, ''), g.node || ':' || g.gpu)
        WHERE g.time_ns >= {window.start_ns - period_ns} AND g.time_ns < {window.end_ns + period_ns}
        GROUP BY ALL
    ), saturations AS (
        SELECT m.*, a.node,
            greatest(0, (m.time_ns - {window.start_ns}) / 1e9) AS time_s,
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


def totals(reader: Reader, window: Window, from_s: float = 0.0) -> list[dict[str, Any]]:
    """Return sums and means per allocated GPU over its observed seconds since `from_s`, GPUs without any included."""
    return rows(
        reader,
        """
        SELECT a.id, a.node, a.gpu, a.uuid, a.model,
            count(s.score) * $bin_s AS observed_s,
            coalesce(sum(s.score), 0) * $bin_s AS saturated_s,
            coalesce(sum(s.busy) FILTER (s.score IS NOT NULL), 0) * $bin_s AS busy_s,
            coalesce(max(s.busy) FILTER (s.score IS NOT NULL), 0) AS peak_busy,
            avg(s.compute) FILTER (s.score IS NOT NULL) AS compute,
            avg(s.memory) FILTER (s.score IS NOT NULL) AS memory,
            avg(s.network) AS network, avg(s.busy) AS busy, avg(s.sm) AS sm, avg(s.engine) AS engine,
            avg(s.tensor) AS tensor, avg(s.dram) AS dram, avg(s.fp64) AS fp64, avg(s.pcie) AS pcie,
            avg(s.tensor * capped(s.clock)) FILTER (s.score IS NOT NULL) AS ofu,
            avg(s.util) AS util, quantile_cont(s.sm, 0.9) - quantile_cont(s.sm, 0.1) AS sm_pulse,
            count(s.clock) AS clocks, avg(s.power_w) AS power_w, max(s.temperature_c) AS temperature_c,
            max(s.memory_used_bytes) AS memory_used_bytes,
            count(*) FILTER (s.throttle & $mask != 0) * $bin_s AS throttled_s
        FROM allocated a LEFT JOIN seconds s ON s.id = a.id AND s.time_s >= $from_s
        GROUP BY ALL ORDER BY a.id
        """,
        {"bin_s": window.bin_s, "mask": THROTTLE_MASK, "from_s": from_s},
    )


def missing_s(reader: Reader, window: Window) -> dict[int, float]:
    """Return, per GPU id that was observed at all, the seconds in gaps longer than GAP_PERIODS; the ends count."""
    period_s = window.bin_s
    found = reader.database.execute(
        """
        WITH edges AS (
            SELECT id, time_s FROM seconds WHERE score IS NOT NULL
            UNION ALL SELECT DISTINCT id, -$period FROM seconds WHERE score IS NOT NULL
            UNION ALL SELECT DISTINCT id, $end FROM seconds WHERE score IS NOT NULL
        ), steps AS (
            SELECT id, time_s - lag(time_s) OVER (PARTITION BY id ORDER BY time_s) AS step FROM edges
        )
        SELECT id, coalesce(sum(step - $period) FILTER (step > $longest), 0) FROM steps GROUP BY id
        """,
        {"period": period_s, "end": window.duration_s, "longest": GAP_PERIODS * period_s},
    ).fetchall()
    return {int(number): float(missing) for number, missing in found}


def energy_j(reader: Reader) -> dict[int, float]:
    """Return the joules per GPU id from its energy counter; a counter that falls was reset and counts on from there."""
    found = reader.database.execute(
        """
        WITH steps AS (
            SELECT a.id, g.energy_j - lag(g.energy_j) OVER (PARTITION BY a.id ORDER BY g.time_ns) AS step
            FROM gpu g JOIN allocated a
                ON a.node = g.node AND a.key = coalesce(nullif(g.uuid, ''), g.node || ':' || g.gpu)
            WHERE g.energy_j IS NOT NULL
        )
        SELECT id, sum(step) FILTER (step > 0) FROM steps GROUP BY id HAVING count(step) > 0
        """
    ).fetchall()
    return {int(number): float(joules or 0.0) for number, joules in found}


def saturation_by_second(reader: Reader) -> tuple[list[float], list[float]]:
    """Return (seconds since start, mean saturation over the GPUs) of each bin that has samples."""
    found = reader.database.execute(
        "SELECT min(time_s), avg(score) FROM seconds WHERE score IS NOT NULL GROUP BY bin ORDER BY bin"
    ).fetchall()
    return [float(time) for time, _ in found], [float(value) for _, value in found]


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
