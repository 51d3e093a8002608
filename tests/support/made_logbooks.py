"""Deterministic logbooks for tests, written through the real writer: a training job with everything that can happen.

start-up 24 s, then steps; a checkpoint; an input stall; one GPU that throttles; one node whose agent was restarted.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from piolet.core.files import write_json, write_text
from piolet.core.nouns import CheckResult, Gpu, Status
from piolet.logbook.layout import Logbook, create
from piolet.logbook.reader import Reader
from piolet.logbook.records import (
    JobRecord,
    NodeAllocation,
    Outcome,
    Refusal,
    Request,
    write_checks,
    write_job,
    write_outcome,
)
from piolet.logbook.schema import FAMILIES
from piolet.logbook.writer import SegmentWriter

START_NS = 1_767_000_000_000_000_000
SECOND_NS = 1_000_000_000
CLOCK_MAX_HZ = 1_980_000_000
H100 = "NVIDIA H100 80GB HBM3"


@dataclass(frozen=True, slots=True)
class Level:
    """What a GPU does in a phase."""

    engine: float
    sm: float
    tensor: float
    dram: float
    nvlink: float = 0.0
    pcie: float = 0.05e9


IDLE = Level(0.0, 0.0, 0.0, 0.0)
STARTUP = Level(0.12, 0.04, 0.0, 0.03, pcie=2e9)
COMPUTE = Level(0.98, 0.86, 0.58, 0.42, nvlink=150e9)
COMMUNICATION = Level(0.95, 0.55, 0.30, 0.30, nvlink=280e9)
CHECKPOINT = Level(0.10, 0.02, 0.0, 0.06, pcie=9e9)
STALL = Level(0.25, 0.18, 0.09, 0.08)

PHASES = (
    (24, "start-up"),
    (66, "training"),
    (8, "checkpoint"),
    (42, "training"),
    (20, "input stall"),
    (40, "training"),
)


def gpu(node: str, index: int, *, model: str = H100, simulated: bool = True) -> Gpu:
    return Gpu(index, f"GPU-{node}-{index}", model, 80 << 30, simulated=simulated)


def row(node: str, index: int, second: float, **values: float | None) -> dict[str, object]:
    """One GPU sample `second` seconds after the start; ratios by column name without `_ratio`."""
    columns = {
        "gr_engine_active",
        "sm_active",
        "tensor_active",
        "dram_active",
        "fp64_active",
        "fp32_active",
        "fp16_active",
    }
    named = {f"{name}_ratio" if name in columns else name: value for name, value in values.items()}
    return {
        "time_ns": START_NS + round(second * SECOND_NS),
        "node": node,
        "gpu": index,
        "uuid": f"GPU-{node}-{index}",
        **named,
    }


def job(nodes: Sequence[str] = ("node1",), gpus: int = 1, seconds: float = 60.0, **changes: object) -> JobRecord:
    """A job of `nodes` x `gpus` that ran for `seconds`."""
    record = JobRecord(
        job_id="4711",
        cluster="lab",
        user="ada",
        command=("python", "train.py", "--epochs", "3"),
        request=Request(nodes=len(nodes), record=True),
        name="first-climb",
        allocation=tuple(NodeAllocation(node, tuple(gpu(node, index) for index in range(gpus))) for node in nodes),
        started_ns=START_NS,
        program_started_ns=START_NS,
        program_ended_ns=START_NS + round(seconds * SECOND_NS),
        sample_interval_s=1.0,
        versions={"piolet": "0.1.0"},
    )
    return replace(record, **changes)


def write(root: Path, record: JobRecord, rows: Iterable[tuple[str, dict[str, object]]]) -> Logbook:
    """Write a logbook with `rows` of (family, row); every node has its own writer, as in a real job."""
    logbook = create(root, record.cluster, record.job_id)
    writers: dict[str, SegmentWriter] = {}
    for family, values in rows:
        node = str(values["node"])
        if node not in writers:
            writers[node] = SegmentWriter(logbook, node)
        writers[node].append(family, values)
    for writer in writers.values():
        writer.close()
    write_job(logbook.job, record)
    return logbook


def in_memory(rows: Iterable[tuple[str, dict[str, object]]], directory: Path = Path("/nonexistent")) -> Reader:
    """An open logbook whose samples never were on a disk."""
    database = duckdb.connect(":memory:")
    for family in FAMILIES.values():
        columns = ", ".join(f'"{column.name}" {column.kind}' for column in family.columns)
        database.execute(f'CREATE TABLE "{family.name}" ({columns})')
        values = [[values.get(name) for name in family.names] for each, values in rows if each == family.name]
        if values:
            marks = ", ".join(f"unnest(?::{column.kind}[])" for column in family.columns)
            database.execute(
                f'INSERT INTO "{family.name}" SELECT {marks}', [list(each) for each in zip(*values, strict=True)]
            )
    return Reader(Logbook(directory), database, ())


def constant(record: JobRecord, seconds: int, **values: float | None) -> list[tuple[str, dict[str, object]]]:
    """One sample a second with the same values on every GPU of the job."""
    return [
        ("gpu", row(node, each.index, second + 0.5, **values))
        for node, each in record.gpus
        for second in range(seconds)
    ]


def training(root: Path, *, nodes: int = 4, gpus: int = 4, scale: float = 1.0) -> Logbook:
    """The whole story: node2 refused, the last node took its place, phases, a slow GPU, a gap, an outcome."""
    length = sum(round(seconds * scale) for seconds, _ in PHASES)
    names = [f"node{number}" for number in range(1, nodes + 2)]
    kept = [name for name in names if name != "node2"]
    record = _training_job(names, gpus, length)
    logbook = write(root, record, _training_rows(kept, gpus, scale))
    write_checks(logbook.vet, "node", _checks(names))
    write_json(logbook.environment_lock, ENVIRONMENT)
    for name in kept:
        held = {"node": name, "by": "aws_ofi_nccl", "kind": "library", "value": "libnccl-net.so"}
        write_text(logbook.verified / f"{name}.jsonl", json.dumps(held) + "\n")
    ended = record.program_ended_ns or 0
    write_outcome(logbook.outcome, Outcome("COMPLETED", 0, ended_ns=ended))
    return logbook


ENVIRONMENT = {
    "schema": 1,
    "name": "demo",
    "image": {
        "kind": "squashfs",
        "path": "/images/demo.sqsh",
        "size_bytes": 112_345_088,
        "sha256": "5f2b8c0d2c9f7f0e6f2f1f3b0f5f2a7d9a0f1f9c6f6f2b1e6d7c8b9a0f1e2d3c",
    },
    "values": [
        {"key": "workdir", "value": "/work", "origin": "demo.toml:4"},
        {"key": "mounts[0]", "value": "/scratch:/work", "origin": "demo.toml:3"},
    ],
}


def _training_job(names: Sequence[str], gpus: int, length: int) -> JobRecord:
    held = tuple(
        NodeAllocation(
            name,
            tuple(gpu(name, index) for index in range(gpus)),
            from_ns=START_NS - 4 * SECOND_NS,
            to_ns=START_NS + length * SECOND_NS,
            used=name != "node2",
        )
        for name in names
    )
    return job(
        names,
        gpus,
        length,
        request=Request(len(names) - 1, 1, "demo", "ml-training", record=True),
        allocation=held,
        refused=(Refusal("node2", "xid: GPU 1 reported Xid 79, the GPU has fallen off the bus"),),
        simulated=("GPUs",),
        submitted_ns=START_NS - 9 * SECOND_NS,
        versions={"piolet": "0.1.0", "slurm": "22.05.8", "driver": "550.54.15", "python": "3.11.2"},
    )


def _checks(names: Sequence[str]) -> list[CheckResult]:
    good = [
        CheckResult(check, name, Status.PASS, "as expected", value, unit=unit, duration_s=0.01, time_ns=START_NS)
        for name in names
        for check, value, unit in (("gpu-count", 4, "GPUs"), ("ecc", 0, "errors"), ("mounts", 3, "mounts"))
    ]
    bad = CheckResult(
        "xid",
        "node2",
        Status.FAIL,
        "GPU 1 reported Xid 79, the GPU has fallen off the bus",
        79,
        remedy="reset or replace the GPU",
        duration_s=0.02,
        time_ns=START_NS,
    )
    return [*good, bad]


def _training_rows(nodes: Sequence[str], gpus: int, scale: float) -> Iterable[tuple[str, dict[str, object]]]:
    chance = random.Random(4711)  # noqa: S311 - reproducible, not secret
    second = 0
    energy: dict[tuple[str, int], float] = {}
    for seconds, phase in PHASES:
        yield "events", _event(nodes[0], second, "phase", phase, f"{phase} begins")
        for _ in range(round(seconds * scale)):
            for node in nodes:
                if not (node == "node3" and 100 * scale <= second < 114 * scale):
                    yield "host", _host(node, second, phase, chance)
                    for index in range(gpus):
                        yield "gpu", _sample(node, index, second, phase=phase, energy=energy, chance=chance)
            if phase == "training":
                yield (
                    "user",
                    _metric(nodes[0], second, "loss", 0.35 + 2.2 * math.exp(-second / 60) + chance.gauss(0, 0.03)),
                )
                yield "user", _metric(nodes[0], second, "step", second)
            second += 1
    last = nodes[-1]
    yield "events", _event("node3", round(114 * scale), "agent", "restart", "agent restarted", severity="warning")
    yield (
        "events",
        _event(
            last, round(60 * scale), "throttle", "thermal", "GPU 2 slows down: thermal", severity="warning", index=2
        ),
    )
    for node in nodes:
        yield "events", _event(node, 0, "collector", "unavailable", "nic: no InfiniBand device on this node")


def _event(
    node: str, second: int, kind: str, code: str, message: str, *, severity: str = "info", index: int | None = None
) -> dict[str, object]:
    return {
        "time_ns": START_NS + second * SECOND_NS,
        "node": node,
        "gpu": index,
        "kind": kind,
        "code": code,
        "severity": severity,
        "message": message,
    }


def _metric(node: str, second: int, name: str, value: float) -> dict[str, object]:
    time_ns = START_NS + second * SECOND_NS
    return {"time_ns": time_ns, "node": node, "rank": 0, "name": name, "value": value, "step": second}


def _host(node: str, second: int, phase: str, chance: random.Random) -> dict[str, object]:
    stalled = phase in {"input stall", "start-up"}
    return {
        "time_ns": START_NS + second * SECOND_NS + 300_000_000,
        "node": node,
        "cpu_busy_ratio": 0.25 + 0.05 * chance.random(),
        "cpu_iowait_ratio": 0.35 if stalled else 0.01,
        "io_pressure_ratio": 0.4 if stalled else 0.0,
        "net_rx_bytes_per_s": 1.2e9 if phase == "training" else 1e6,
        "net_tx_bytes_per_s": 1.2e9 if phase == "training" else 1e6,
        "disk_write_bytes_per_s": 2e9 if phase == "checkpoint" else 0.0,
        "memory_used_bytes": 90 << 30,
        "memory_total_bytes": 512 << 30,
    }


def _sample(
    node: str, index: int, second: int, *, phase: str, energy: dict[tuple[str, int], float], chance: random.Random
) -> dict[str, object]:
    level = _level(phase, second)
    slow = node == "node5" and index == 2 and second >= 60
    share = (0.72 if slow else 1.0) * (1 + 0.03 * chance.gauss(0, 1))
    sm = min(level.sm * share, 1.0)
    power = 90 + 560 * min(1.0, 0.7 * level.sm * share + 0.3 * level.tensor * share)
    energy[node, index] = energy.get((node, index), 1e6) + power
    return row(
        node,
        index,
        second + 0.02,
        gpu_util_ratio=1.0 if level.engine else 0.0,
        gr_engine_active=min(level.engine * (1 + 0.01 * chance.random()), 1.0),
        sm_active=sm,
        sm_occupancy_ratio=sm * 0.4,
        tensor_active=level.tensor * share,
        dram_active=level.dram * share,
        fp64_active=0.0,
        fp32_active=level.sm * 0.06,
        fp16_active=0.0,
        pcie_tx_bytes_per_s=level.pcie * 0.4,
        pcie_rx_bytes_per_s=level.pcie,
        nvlink_rx_bytes_per_s=level.nvlink * share,
        nvlink_tx_bytes_per_s=level.nvlink * share,
        memory_used_bytes=61 << 30,
        power_w=power,
        energy_j=energy[node, index],
        sm_clock_hz=1_410_000_000 if slow else CLOCK_MAX_HZ,
        sm_clock_max_hz=CLOCK_MAX_HZ,
        temperature_c=88 if slow else 52 + 14 * level.sm,
        throttle_reasons=0x20 if slow else 0,
        ecc_corrected=0,
        ecc_uncorrected=0,
    )


def _level(phase: str, second: int) -> Level:
    if phase == "training":
        return COMMUNICATION if second % 7 == 0 else COMPUTE
    if phase == "input stall":
        return COMPUTE if second % 6 == 0 else STALL
    return {"start-up": STARTUP, "checkpoint": CHECKPOINT}[phase]
