"""A job prepared for judgement: its samples in bins coarse enough to be robust, with the median of the peers beside.

Table `g` has a row a GPU and bin, `h` a row a node and bin; `peers` the job's medians a bin, `host_peers` likewise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from piolet.core.nouns import Interval
from piolet.logbook.reader import Reader
from piolet.logbook.records import Evidence, JobRecord
from piolet.watch.diagnosis.logs import LogMatch
from piolet.watch.past import Past
from piolet.watch.quality import DataQuality
from piolet.watch.series import SECOND_NS

MOST_BINS = 360
SHORTEST_BIN_S = 5.0
PERSISTENCE_S = 30.0
"""How long something must last to count: without persistence a third of what Minder alarmed on was noise."""

BUSY = 0.2
"""Engine activity above which a GPU has work."""

POWER_CAP_BIT = 0x4
POWER_BRAKE_BIT = 0x80
HARDWARE_BIT = 0x8
THERMAL_BITS = 0x20 | 0x40
"""NVML's clocks-event reasons: power cap, external power brake; software and hardware thermal slowdown.

A hardware slowdown is one by heat, unless the power brake is on too.
"""

_GPU = f"""
    CREATE OR REPLACE TEMP TABLE g AS
    SELECT node, gpu, CAST(floor((time_ns - $start) / $width) AS BIGINT) AS bin,
        avg(sm_active_ratio) AS sm, avg(tensor_active_ratio) AS tensor, avg(dram_active_ratio) AS dram,
        avg(gr_engine_active_ratio) AS engine, avg(power_w) AS power, avg(sm_clock_hz) AS clock,
        max(sm_clock_max_hz) AS clock_max, avg(temperature_c) AS temperature,
        avg(CAST(throttle_reasons & {THERMAL_BITS} != 0
            OR throttle_reasons & {HARDWARE_BIT | POWER_BRAKE_BIT} = {HARDWARE_BIT} AS INTEGER)) AS thermal,
        avg(CAST(throttle_reasons & {POWER_CAP_BIT} != 0 AS INTEGER)) AS capped,
        avg(CAST(throttle_reasons & {POWER_BRAKE_BIT} != 0 AS INTEGER)) AS braked,
        avg(nvlink_rx_bytes_per_s + nvlink_tx_bytes_per_s) AS nvlink, avg(pcie_rx_bytes_per_s) AS pcie,
        quantile_cont(sm_active_ratio, 0.9) - quantile_cont(sm_active_ratio, 0.1) AS pulse
    FROM gpu WHERE time_ns >= $start AND time_ns < $end GROUP BY ALL
"""  # noqa: S608 - constants
_HOST = """
    CREATE OR REPLACE TEMP TABLE h AS
    SELECT node, CAST(floor((time_ns - $start) / $width) AS BIGINT) AS bin,
        avg(cpu_busy_ratio) AS cpu, avg(cpu_iowait_ratio) AS iowait, avg(cpu_pressure_ratio) AS cpu_pressure,
        avg(io_pressure_ratio) AS io_pressure, avg(memory_pressure_ratio) AS memory_pressure,
        avg(memory_used_bytes) AS memory, max(memory_total_bytes) AS memory_total,
        avg(net_rx_bytes_per_s) AS net_rx, avg(net_tx_bytes_per_s) AS net_tx,
        avg(disk_read_bytes_per_s) AS disk_read, avg(disk_write_bytes_per_s) AS disk_write
    FROM host WHERE time_ns >= $start AND time_ns < $end GROUP BY ALL
"""
_PEERS = """
    CREATE OR REPLACE TEMP TABLE peers AS
    SELECT bin, median(sm) AS sm, median(tensor) AS tensor, median(engine) AS engine, median(power) AS power,
        median(clock) AS clock, median(nvlink) AS nvlink, median(temperature) AS temperature, count(*) AS gpus
    FROM g GROUP BY bin
"""
_HOST_PEERS = """
    CREATE OR REPLACE TEMP TABLE host_peers AS
    SELECT bin, median(cpu) AS cpu, median(iowait) AS iowait, median(cpu_pressure) AS cpu_pressure,
        median(io_pressure) AS io_pressure, median(memory) AS memory, count(*) AS nodes
    FROM h GROUP BY bin
"""


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch in which a condition held on a node (and GPU), with the means of what was asked for."""

    node: str
    gpu: int | None
    from_ns: int
    to_ns: int
    means: Mapping[str, float | None]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return (self.to_ns - self.from_ns) / SECOND_NS


@dataclass(frozen=True, slots=True)
class Case:
    """What rules judge. `startup_s` seconds at the beginning are no steady state; `logs` are what the output says.

    `past` leads to other jobs that whoever asks may see, None where nobody gave them.
    """

    reader: Reader
    job: JobRecord
    interval: Interval
    width_ns: int
    startup_s: float
    quality: DataQuality
    logs: tuple[LogMatch, ...] = ()
    past: Past | None = None

    def query(self, sql: str, **parameters: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query over the case's tables and the logbook's views."""
        return self.reader.database.execute(sql, parameters).fetchall()

    def has(self, need: str) -> bool:
        """Return whether a family, or a family.column, was recorded at all; of several with ``|``, whether one was."""
        if "|" in need:
            return any(map(self.has, need.split("|")))
        family, _, column = need.partition(".")
        if family == "logs":
            return bool(self.logs)
        if family == "past":
            return self.past is not None
        if need == "user.step":
            return bool(self.query("SELECT 1 FROM user WHERE step IS NOT NULL LIMIT 1"))
        if family in {"events", "user", "clock"}:
            names = {"events": "kind", "user": "name"}
            where = f" WHERE {names[family]} = $wanted" if column else ""
            found = self.query(f'SELECT 1 FROM "{family}"{where} LIMIT 1', **({"wanted": column} if column else {}))  # noqa: S608 - known families
            return bool(found) or need == "events"
        return not {(family, ""), (family, column)} & set(self.quality.never)

    @property
    def steady_bin(self) -> int:
        """The first bin after the start-up."""
        return math.ceil(self.startup_s * SECOND_NS / self.width_ns)

    @property
    def persistent_bins(self) -> int:
        """How many bins in a row count as persistent."""
        return max(2, math.ceil(PERSISTENCE_S * SECOND_NS / self.width_ns))

    def time_ns(self, bin_: float) -> int:
        """Return when a bin begins."""
        return min(self.interval.end_ns, self.interval.start_ns + round(bin_ * self.width_ns))

    def episodes(self, table: str, condition: str, means: Sequence[str], *, bins: int | None = None) -> list[Episode]:
        """Return where `condition` held for `bins` in a row (default: persistently); `p` are the peers' medians.

        A single bin in between does not end an episode.
        """
        peers, gpu = ("peers", "gpu") if table == "g" else ("host_peers", "NULL::INTEGER")
        averages = ", ".join(f"avg({mean})" for mean in means)
        found = self.query(
            f"""
            WITH held AS (
                SELECT t.*, {", ".join(f"p.{name} AS p_{name}" for name in _PEER_COLUMNS[table])},
                    {gpu} AS which, lag(t.bin) OVER (PARTITION BY node, {gpu} ORDER BY t.bin) AS before
                FROM {table} t JOIN {peers} p USING (bin) WHERE {condition}
            ), numbered AS (
                SELECT *, sum(CASE WHEN bin - before <= 2 THEN 0 ELSE 1 END)
                    OVER (PARTITION BY node, which ORDER BY bin) AS island FROM held
            )
            SELECT node, which, min(bin), max(bin) + 1, {averages} FROM numbered
            GROUP BY node, which, island HAVING count(*) >= $bins ORDER BY min(bin), node, which
            """,  # noqa: S608 - rules are code
            bins=bins or self.persistent_bins,
        )
        return [
            Episode(node, which, self.time_ns(first), self.time_ns(last), dict(zip(means, values, strict=True)))
            for node, which, first, last, *values in found
        ]

    def evidence(self, what: str, episode: Episode, column: str, value: float | None, **more: Any) -> Evidence:  # noqa: ANN401 - fields of Evidence
        """Return evidence that links to the plot and the interval of an episode."""
        family = "host" if episode.gpu is None else "gpu"
        return Evidence(
            what,
            value,
            family=family,
            column=column,
            node=episode.node,
            gpu=episode.gpu,
            from_ns=episode.from_ns,
            to_ns=episode.to_ns,
            **more,
        )


_PEER_COLUMNS = {
    "g": ("sm", "tensor", "engine", "power", "clock", "nvlink", "temperature", "gpus"),
    "h": ("cpu", "iowait", "cpu_pressure", "io_pressure", "memory", "nodes"),
}


def prepare(
    reader: Reader,
    job: JobRecord,
    interval: Interval,
    quality: DataQuality,
    *,
    logs: tuple[LogMatch, ...] = (),
    past: Past | None = None,
) -> Case:
    """Make the tables and return the case."""
    width_ns = round(max(SHORTEST_BIN_S * SECOND_NS, math.ceil(interval.duration_s / MOST_BINS) * SECOND_NS))
    window = {"start": interval.start_ns, "end": interval.end_ns, "width": width_ns}
    for statement in (_GPU, _HOST):
        reader.database.execute(statement, window)
    for statement in (_PEERS, _HOST_PEERS):
        reader.database.execute(statement)
    return Case(reader, job, interval, width_ns, _startup_s(reader, width_ns), quality, logs, past)


def _startup_s(reader: Reader, width_ns: int) -> float:
    """Return the length of the first low phase: until the peers' SM activity first reaches half its upper quartile."""
    found = reader.database.execute(
        """
        SELECT min(bin) FROM peers WHERE sm >= 0.5 * (SELECT quantile_cont(sm, 0.75) FROM peers)
            AND (SELECT quantile_cont(sm, 0.75) FROM peers) > 0.02
        """
    ).fetchall()[0][0]
    return (found or 0) * width_ns / SECOND_NS
