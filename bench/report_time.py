"""How long the report of a large job takes, and how much memory: `piolet score JOB --html`, timed from outside.

    .venv/bin/python bench/report_time.py [--size 64x4x3600 ...] [--runs 3] [--keep DIRECTORY]

A size is nodes x GPUs x seconds at 1 Hz. The logbooks are made: every column of the family `gpu` that NVML and GPM fill
and the `host`, `nic`, `fs` and `energy` of every node, with noise of the size that sensors have, in the merged segments
of a finished job. A checkpoint every ten minutes, a start-up of 40 s, one GPU in fifty that is slower. No tool that we
know makes a report of such a job from files, so there is no peer beside the figures.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb
from common import measured, report

from piolet.core.nouns import Gpu
from piolet.logbook import merging, segments
from piolet.logbook.layout import Logbook, create
from piolet.logbook.records import JobRecord, NodeAllocation, Outcome, write_job, write_outcome
from piolet.logbook.schema import FAMILIES, Column

START_NS = 1_767_000_000_000_000_000
MODEL = "NVIDIA H100 80GB HBM3"
FLUSHES = 60

_BUSY = "(t >= 40 AND t % 600 >= 12)"
GPU = {
    "gpu_util_ratio": f"if({_BUSY}, 1, 0.2)",
    "gr_engine_active_ratio": f"if({_BUSY}, 0.97 + 0.02 * noise, 0.1)",
    "sm_active_ratio": f"if({_BUSY}, 0.82 + 0.06 * noise, 0.03) * skill",
    "sm_occupancy_ratio": f"if({_BUSY}, 0.3 + 0.03 * noise, 0.01)",
    "tensor_active_ratio": f"if({_BUSY}, 0.48 + 0.05 * noise + 0.1 * sin(t / 3.0), 0) * skill",
    "dram_active_ratio": f"if({_BUSY}, 0.41 + 0.04 * noise2, 0.02) * skill",
    "fp64_active_ratio": "0",
    "fp32_active_ratio": f"if({_BUSY}, 0.06 + 0.01 * noise2, 0)",
    "fp16_active_ratio": f"if({_BUSY}, 0.03 + 0.005 * noise, 0)",
    "int_active_ratio": f"if({_BUSY}, 0.08 + 0.01 * noise, 0)",
    "pcie_tx_bytes_per_s": f"if({_BUSY}, 3e9 + 4e8 * noise, 8e9)",
    "pcie_rx_bytes_per_s": "1.2e9 + 2e8 * noise2",
    "nvlink_rx_bytes_per_s": f"if({_BUSY}, 9e10 + 6e9 * noise, 0)",
    "nvlink_tx_bytes_per_s": f"if({_BUSY}, 9e10 + 6e9 * noise2, 0)",
    "memory_used_bytes": "71000 * 1048576::BIGINT",
    "power_w": f"if({_BUSY}, 610 + 20 * noise, 122)",
    "energy_j": "1000000 + 600 * t",
    "sm_clock_hz": "1755000000 + 15000000 * round(2 * noise)",
    "sm_clock_max_hz": "1980000000",
    "memory_clock_hz": "2619000000",
    "temperature_c": "61 + 3 * noise",
    "memory_temperature_c": "70 + 3 * noise2",
    "throttle_reasons": "if(noise > 0.4, 4, 0)",
    "power_limit_w": "700",
    "ecc_corrected": "0",
    "ecc_uncorrected": "0",
    "pcie_replays": "0",
    "nvlink_errors": "0",
}
HOST = {
    "cpu_busy_ratio": "0.25 + 0.05 * noise",
    "cpu_iowait_ratio": "0.01",
    "io_pressure_ratio": "0.01",
    "memory_used_bytes": "150000 * 1048576::BIGINT",
    "memory_total_bytes": "800000 * 1048576::BIGINT",
    "net_rx_bytes_per_s": "2e6 * (1 + noise)",
}
NIC = {
    "kind": "'cxi'",
    "rx_bytes_per_s": f"if({_BUSY}, 2e10 + 1e9 * noise, 1e6)",
    "tx_bytes_per_s": f"if({_BUSY}, 2e10 + 1e9 * noise2, 1e6)",
    "speed_bytes_per_s": "25e9",
    "up": "true",
}
FS = {
    "kind": "'lustre'",
    "read_bytes_per_s": f"if({_BUSY}, 2e8 * (1 + noise), 0)",
    "write_bytes_per_s": f"if({_BUSY}, 0, 3e9)",
    "read_latency_s": "0.002",
}
ENERGY = {"source": "'pm_counters'", "power_w": "3100 + 50 * noise", "energy_j": "5000000 + 3100 * t"}
TABLES = {"gpu": (GPU, "gpu"), "host": (HOST, ""), "nic": (NIC, "nic"), "fs": (FS, "fs"), "energy": (ENERGY, "domain")}
NAMES = {"nic": "'hsn' || d", "fs": "'/scratch'", "domain": "'node'", "gpu": "d"}


@dataclass(frozen=True, slots=True)
class Size:
    """A job to make."""

    nodes: int
    gpus: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Size:
        """Return the size in ``64x4x3600``."""
        return cls(*(int(part) for part in text.split("x")))

    def __str__(self) -> str:
        return f"{self.nodes} x {self.gpus} x {self.seconds} s"


@dataclass(frozen=True, slots=True)
class Taken:
    """What one run took: seconds passed, seconds of CPU, and the most memory that was resident."""

    wall_s: float
    cpu_s: float
    memory_mb: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=Size.parse, nargs="+", default=[Size(64, 4, 3600), Size(2688, 4, 600)])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = {str(size): _measured(asked.keep or Path(name), size, asked.runs) for size in asked.size}
    results = []
    for text, taken in found.items():
        results += [
            measured(f"report of {text}", "s", [each.wall_s for each in taken]),
            measured(f"report of {text}, CPU", "s", [each.cpu_s for each in taken]),
            measured(f"report of {text}, memory", "MB", [each.memory_mb for each in taken]),
        ]
    report(__file__, results, duckdb=f"DuckDB {duckdb.__version__}")


def _measured(root: Path, size: Size, runs: int) -> list[Taken]:
    logbook = root / "bench" / f"{size.nodes}x{size.gpus}x{size.seconds}"
    if not (logbook / "job.json").exists():
        make(root, logbook.name, size)
    return [_taken(logbook) for _ in range(runs)]


def _taken(logbook: Path) -> Taken:
    page = logbook / "report.html"
    argv = [str(Path(sys.executable).with_name("piolet")), "score", str(logbook), "--brief", "--html", str(page)]
    began = time.monotonic()
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    _, status, usage = os.wait4(os.posix_spawn(argv[0], argv, os.environ, file_actions=silent), 0)
    if status:
        sys.exit(f"{' '.join(argv)} failed")
    return Taken(time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


def make(root: Path, job_id: str, size: Size) -> Logbook:
    """Write the logbook of a finished job of this size."""
    logbook = create(root, "bench", job_id)
    with merging.connect() as database:
        for number in range(size.nodes):
            for family in TABLES:
                path = logbook.family(family) / segments.name(_node(number), 1, FLUSHES)
                path.parent.mkdir(parents=True, exist_ok=True)
                merging.copy(database, _query(family, number, size), path)
    write_job(logbook.job, _job(job_id, size))
    write_outcome(logbook.outcome, Outcome("COMPLETED", 0))
    return logbook


def _query(family: str, node: int, size: Size) -> str:
    columns, device = TABLES[family]
    given = {"time_ns": f"{START_NS} + t * 1000000000 + 20000000", "node": f"'{_node(node)}'"} | columns
    given |= {device: NAMES[device]} if device else {}
    given |= {"uuid": f"'GPU-{_node(node)}-' || d"} if family == "gpu" else {}
    rounded = ", ".join(_value(column, given.get(column.name)) for column in FAMILIES[family].columns)
    devices = {"gpu": size.gpus, "nic": 4}.get(family, 1)
    return f"""
        SELECT {rounded} FROM (
            SELECT t, d, random() + random() + random() + random() - 2 AS noise, random() + random() - 1 AS noise2,
                if(hash({node}, d) % 50 = 0, 0.85, 1 + 0.01 * (hash({node}, d, 1) % 100) / 100.0) AS skill
            FROM range({devices}) a(d), range({size.seconds}) b(t) ORDER BY d, t)
    """  # noqa: S608 - all of it is ours


def _value(column: Column, expression: str | None) -> str:
    if expression is None:
        return f"NULL::{column.kind} AS {column.name}"
    step = f"round(({expression}) / {column.resolution}) * {column.resolution}" if column.resolution else expression
    return f"({step})::{column.kind} AS {column.name}"


def _job(job_id: str, size: Size) -> JobRecord:
    return JobRecord(
        job_id=job_id,
        cluster="bench",
        user="ada",
        name="llm-pretraining",
        command=("python", "train.py"),
        allocation=tuple(
            NodeAllocation(_node(n), tuple(Gpu(g, f"GPU-{_node(n)}-{g}", MODEL) for g in range(size.gpus)))
            for n in range(size.nodes)
        ),
        program_started_ns=START_NS,
        program_ended_ns=START_NS + size.seconds * 10**9,
        sample_interval_s=1.0,
    )


def _node(number: int) -> str:
    return f"nid{number:06d}"


if __name__ == "__main__":
    main()
