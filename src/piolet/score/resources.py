"""What a job used beside its GPUs' activity: file systems, the network, energy. Sums and peaks, nothing judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from piolet.logbook.reader import Reader
from piolet.score.measure import Window, rows
from piolet.score.model import JobScore

WORTH_S = 1e6
"""Bytes per second, of all nodes together, below which a file system was not used."""


@dataclass(frozen=True, slots=True)
class Files:
    """A file system or the nodes' disk of that name, all nodes together: means and peaks in bytes per second.

    The latencies are means of a read and of a write in seconds, weighed by how many there were.
    """

    name: str
    kind: str
    nodes: int
    read: float
    read_peak: float
    write: float
    write_peak: float
    read_latency_s: float | None
    write_latency_s: float | None


@dataclass(frozen=True, slots=True)
class Network:
    """All adapters of a kind: means over adapters and the highest of one, in bytes per second and direction.

    `busiest` is the highest share of its speed that one of them reached, None where speeds are not known. `troubles`
    counts what went wrong by name, such as errors and retries, without those that are zero.
    """

    kind: str
    adapters: int
    nodes: int
    receive: float
    send: float
    highest: float
    busiest: float | None
    troubles: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules of all GPUs, and of whole nodes where these measure themselves; means in watts. None was not measured."""

    gpus_j: float | None
    nodes_j: float | None
    nodes_measured: int
    gpu_w: float | None
    limit_ratio: float | None


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything of a job beside its GPUs' activity."""

    files: tuple[Files, ...]
    network: tuple[Network, ...]
    energy: Energy


def resources(reader: Reader, window: Window, score: JobScore) -> Resources:
    """Return what the job used between the window's times."""
    return Resources(_files(reader, window), _network(reader, window), _energy(reader, window, score))


def _within(window: Window) -> str:
    return f"time_ns BETWEEN {window.start_ns} AND {window.end_ns}"


def _files(reader: Reader, window: Window) -> tuple[Files, ...]:
    found = rows(
        reader,
        f"""
        WITH each AS (
            SELECT fs, kind, time_ns // 1000000000 AS second, node, avg(read_bytes_per_s) AS read,
                avg(write_bytes_per_s) AS write, sum(read_latency_s * read_ops_per_s) AS read_s,
                sum(read_ops_per_s) FILTER (read_latency_s IS NOT NULL) AS reads,
                sum(write_latency_s * write_ops_per_s) AS write_s,
                sum(write_ops_per_s) FILTER (write_latency_s IS NOT NULL) AS writes
            FROM fs WHERE {_within(window)} GROUP BY ALL
        ), together AS (
            SELECT fs, kind, second, count(*) AS nodes, sum(read) AS read, sum(write) AS write, sum(read_s) AS read_s,
                sum(reads) AS reads, sum(write_s) AS write_s, sum(writes) AS writes FROM each GROUP BY ALL
        )
        SELECT fs AS name, coalesce(kind, '') AS kind,
            max(nodes)::INTEGER AS nodes,
            coalesce(avg(read), 0) AS read, coalesce(max(read), 0) AS read_peak,
            coalesce(avg(write), 0) AS write, coalesce(max(write), 0) AS write_peak,
            sum(read_s) / nullif(sum(reads), 0) AS read_latency_s,
            sum(write_s) / nullif(sum(writes), 0) AS write_latency_s
        FROM together GROUP BY ALL HAVING greatest(max(read), max(write)) >= {WORTH_S}
        ORDER BY greatest(avg(read), avg(write)) DESC
        """,  # noqa: S608 - numbers
    )
    return tuple(Files(**row) for row in found)


_TROUBLES = {
    "errors": ("rx_errors", "tx_errors"),
    "packets dropped": ("rx_dropped", "tx_dropped"),
    "sent again": ("retries",),
    "congestion notices": ("congestion_marks",),
    "link went down": ("link_downs",),
}


def _network(reader: Reader, window: Window) -> tuple[Network, ...]:
    counters = [name for names in _TROUBLES.values() for name in names]
    rises = ", ".join(f"max({name}) - min({name}) AS {name}" for name in counters)
    sums = ", ".join(f"coalesce(sum({name}), 0)::BIGINT AS {name}" for name in counters)
    found = rows(
        reader,
        f"""
        WITH each AS (
            SELECT coalesce(kind, '') AS kind, node, nic, avg(rx_bytes_per_s) AS rx, avg(tx_bytes_per_s) AS tx,
                max(greatest(rx_bytes_per_s, tx_bytes_per_s)) AS highest,
                max(greatest(rx_bytes_per_s, tx_bytes_per_s) / nullif(speed_bytes_per_s, 0)) AS busiest, {rises}
            FROM nic WHERE {_within(window)} GROUP BY ALL
        )
        SELECT kind, count(*)::INTEGER AS adapters, count(DISTINCT node)::INTEGER AS nodes,
            coalesce(avg(rx), 0) AS receive, coalesce(avg(tx), 0) AS send, coalesce(max(highest), 0) AS highest,
            least(max(busiest), 1) AS busiest, {sums}
        FROM each GROUP BY kind ORDER BY highest DESC
        """,  # noqa: S608 - our own columns
    )
    return tuple(_one_kind(row) for row in found)


def _one_kind(row: Mapping[str, Any]) -> Network:
    troubles = {name: sum(row[column] for column in columns) for name, columns in _TROUBLES.items()}
    return Network(
        kind=row["kind"],
        adapters=row["adapters"],
        nodes=row["nodes"],
        receive=row["receive"],
        send=row["send"],
        highest=row["highest"],
        busiest=row["busiest"],
        troubles={name: count for name, count in troubles.items() if count > 0},
    )


def _energy(reader: Reader, window: Window, score: JobScore) -> Energy:
    nodes = rows(
        reader,
        f"""
        WITH steps AS (
            SELECT node, domain, energy_j - lag(energy_j) OVER (PARTITION BY node, domain ORDER BY time_ns) AS step
            FROM energy WHERE {_within(window)} AND domain = 'node' AND energy_j IS NOT NULL
        )
        SELECT sum(step) FILTER (step > 0)::DOUBLE AS joules, count(DISTINCT node)::INTEGER AS nodes FROM steps
        """,  # noqa: S608 - numbers
    )[0]
    limit = rows(reader, f"SELECT avg(power_w / nullif(power_limit_w, 0)) AS ratio FROM gpu WHERE {_within(window)}")[0]  # noqa: S608 - numbers
    return Energy(
        gpus_j=score.energy_j,
        nodes_j=nodes["joules"],
        nodes_measured=nodes["nodes"],
        gpu_w=_mean([gpu.power_w for gpu in score.gpus if gpu.power_w is not None]),
        limit_ratio=limit["ratio"],
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
