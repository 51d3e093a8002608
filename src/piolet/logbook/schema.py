"""The families of samples: their columns, units and resolutions. Units are SI and stand in the name.

Ratios are 0..1, time is UTC nanoseconds, missing is null. A value is rounded to its column's `resolution` when it is
written, which is what its source resolves; that is also what makes it compress well.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSION = 1
"""Of the schema; written into the metadata of every segment."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `kind` is the SQL type; `resolution` is the step that values are rounded to (0: as they are)."""

    name: str
    kind: str
    resolution: float = 0.0
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """A table of samples; `key` names the columns that identify a row."""

    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns, in order."""
        return tuple(column.name for column in self.columns)


def _ratio(name: str, meaning: str) -> Column:
    return Column(f"{name}_ratio", "FLOAT", 0.001, meaning)


def _rate(name: str, meaning: str) -> Column:
    return Column(f"{name}_bytes_per_s", "FLOAT", 1024.0, meaning)


TIME = Column("time_ns", "BIGINT", 0, "UTC nanoseconds at which the sample was read")
NODE = Column("node", "VARCHAR", 0, "name of the node")

GPU = Family(
    "gpu",
    ("time_ns", "node", "gpu"),
    (
        TIME,
        NODE,
        Column("gpu", "INTEGER", 0, "index on the node, in NVML's order"),
        Column("uuid", "VARCHAR", 0, "UUID of the GPU"),
        _ratio("gpu_util", "share of time in which any kernel was resident (NVML utilisation)"),
        _ratio("gr_engine_active", "graphics/compute engine active (GPM 1)"),
        _ratio("sm_active", "SMs with at least one resident warp (GPM 2)"),
        _ratio("sm_occupancy", "resident warps of the possible ones (GPM 3)"),
        _ratio("tensor_active", "tensor pipes active, any type (GPM 5)"),
        _ratio("dram_active", "device memory bandwidth in use (GPM 10)"),
        _ratio("fp64_active", "FP64 pipe active (GPM 11)"),
        _ratio("fp32_active", "FP32 pipe active (GPM 12)"),
        _ratio("fp16_active", "FP16 pipe active, without tensor cores (GPM 13)"),
        _rate("pcie_tx", "PCIe, from the GPU (GPM 20)"),
        _rate("pcie_rx", "PCIe, to the GPU (GPM 21)"),
        _rate("nvlink_rx", "NVLink, to the GPU, all links (GPM 60)"),
        _rate("nvlink_tx", "NVLink, from the GPU, all links (GPM 61)"),
        Column("memory_used_bytes", "BIGINT", 1 << 20, "device memory in use"),
        Column("power_w", "FLOAT", 0.1, "power draw"),
        Column("energy_j", "DOUBLE", 0.001, "energy since the driver was loaded; a counter"),
        Column("sm_clock_hz", "BIGINT", 1_000_000, "SM clock"),
        Column("sm_clock_max_hz", "BIGINT", 1_000_000, "highest SM clock of this GPU"),
        Column("temperature_c", "FLOAT", 1, "GPU temperature, Celsius"),
        Column("throttle_reasons", "BIGINT", 0, "bit mask of NVML's clocks-event reasons"),
        Column("ecc_corrected", "BIGINT", 0, "corrected errors since the driver was loaded; a counter"),
        Column("ecc_uncorrected", "BIGINT", 0, "uncorrected errors since the driver was loaded; a counter"),
    ),
)

HOST = Family(
    "host",
    ("time_ns", "node"),
    (
        TIME,
        NODE,
        _ratio("cpu_busy", "CPU time not idle and not waiting, of all CPUs"),
        _ratio("cpu_iowait", "CPU time waiting for I/O, of all CPUs"),
        _ratio("cpu_pressure", "PSI cpu some: share of time in which a task waited for a CPU"),
        _ratio("memory_pressure", "PSI memory some"),
        _ratio("io_pressure", "PSI io some"),
        Column("memory_used_bytes", "BIGINT", 1 << 20, "MemTotal - MemAvailable"),
        Column("memory_total_bytes", "BIGINT", 1 << 20, "MemTotal"),
        _rate("net_rx", "received on all interfaces but loopback"),
        _rate("net_tx", "sent on all interfaces but loopback"),
        _rate("disk_read", "read from block devices"),
        _rate("disk_write", "written to block devices"),
    ),
)

USER = Family(
    "user",
    ("time_ns", "node", "name"),
    (
        TIME,
        NODE,
        Column("rank", "INTEGER", 0, "rank that reported it"),
        Column("name", "VARCHAR", 0, "name of the metric"),
        Column("value", "DOUBLE", 0, "its value, in the unit that the program uses"),
        Column("step", "BIGINT", 0, "training step"),
    ),
)

EVENTS = Family(
    "events",
    ("time_ns", "node", "kind", "code"),
    (
        TIME,
        NODE,
        Column("gpu", "INTEGER", 0, "index on the node, null if not about a GPU"),
        Column("uuid", "VARCHAR", 0, "UUID of the GPU"),
        Column("kind", "VARCHAR", 0, "xid, throttle, agent, collector, phase, user"),
        Column("code", "VARCHAR", 0, "number or word within the kind, such as 79, start, restart, unavailable"),
        Column("severity", "VARCHAR", 0, "info, warning, error"),
        Column("message", "VARCHAR", 0, "what happened, for people"),
    ),
)

FAMILIES = {family.name: family for family in (GPU, HOST, USER, EVENTS)}
