"""The families of samples: their columns, units and resolutions. Units are SI and stand in the name.

Columns and families are only ever added: a reader gives null for what an older logbook does not have.

Ratios are 0..1, time is UTC nanoseconds, missing is null. A value is rounded to its column's `resolution` when it is
written, which is what its source resolves, and a FLOAT to SIGNIFICANT_BITS, within 0.4 % of it: what happens in a
second is measured no better. Steps below one are powers of two, so that the last two bytes of every FLOAT are zero.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSION = 1
"""Of the schema; written into the metadata of every segment."""

SIGNIFICANT_BITS = 8
"""Of a FLOAT: as many as bfloat16 has."""

NOT_APPLICABLE = "not-applicable"
"""Code of the event of a collector whose source is not there at all; `unavailable` is one that should have worked."""


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

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of the numeric columns that are no part of the key."""
        kinds = {"FLOAT", "DOUBLE", "BIGINT", "INTEGER"}
        return tuple(column.name for column in self.columns if column.kind in kinds and column.name not in self.key)

    @property
    def meanings(self) -> dict[str, str]:
        """What every column holds."""
        return {column.name: column.meaning for column in self.columns}

    @property
    def order(self) -> tuple[str, ...]:
        """The key as merged segments are sorted by it: device first, then time, so that neighbours are alike."""
        return (*self.key[1:], self.key[0])


def _ratio(name: str, meaning: str) -> Column:
    return Column(f"{name}_ratio", "FLOAT", 2**-10, meaning)


def _rate(name: str, meaning: str) -> Column:
    return Column(f"{name}_bytes_per_s", "FLOAT", 1024.0, meaning)


def _link_rate(name: str, meaning: str) -> Column:
    """A rate of links that carry gigabytes: GPM itself counts in MiB."""
    return Column(f"{name}_bytes_per_s", "FLOAT", 1024.0 * 1024.0, meaning)


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
        _ratio("int_active", "integer pipe active (GPM 4)"),
        _link_rate("pcie_tx", "PCIe, from the GPU (GPM 20)"),
        _link_rate("pcie_rx", "PCIe, to the GPU (GPM 21)"),
        _link_rate("nvlink_rx", "NVLink or Infinity Fabric, to the GPU, all links (GPM 60)"),
        _link_rate("nvlink_tx", "NVLink or Infinity Fabric, from the GPU, all links (GPM 61)"),
        _link_rate("c2c_rx", "chip to chip, from the CPU of a superchip (DCGM 1078)"),
        _link_rate("c2c_tx", "chip to chip, to the CPU of a superchip (DCGM 1076)"),
        Column("memory_used_bytes", "BIGINT", 1 << 20, "device memory in use"),
        Column("power_w", "FLOAT", 1, "power draw; the sensor is good to some 5 W"),
        Column("energy_j", "BIGINT", 1, "energy since the driver was loaded; a counter"),
        Column("sm_clock_hz", "BIGINT", 1_000_000, "SM clock"),
        Column("sm_clock_max_hz", "BIGINT", 1_000_000, "highest SM clock of this GPU"),
        Column("temperature_c", "FLOAT", 1, "GPU temperature, Celsius"),
        Column("throttle_reasons", "BIGINT", 0, "bit mask of NVML's clocks-event reasons"),
        Column("ecc_corrected", "BIGINT", 0, "corrected errors since the driver was loaded; a counter"),
        Column("ecc_uncorrected", "BIGINT", 0, "uncorrected errors since the driver was loaded; a counter"),
        Column("memory_clock_hz", "BIGINT", 1_000_000, "memory clock"),
        Column("memory_temperature_c", "FLOAT", 1, "temperature of the device memory, Celsius"),
        Column("power_limit_w", "FLOAT", 1, "power limit in force"),
        Column("pcie_replays", "BIGINT", 0, "PCIe packets sent again; a counter"),
        Column("nvlink_errors", "BIGINT", 0, "CRC errors, replays and recoveries of all NVLinks; a counter"),
        Column("source", "VARCHAR", 0, "who read it: nvml, dcgm, amd-smi; null is nvml"),
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

NIC = Family(
    "nic",
    ("time_ns", "node", "nic"),
    (
        TIME,
        NODE,
        Column("nic", "VARCHAR", 0, "device as the kernel names it: hsn0, mlx5_0/1, eth0, cxi0"),
        Column("kind", "VARCHAR", 0, "ethernet, infiniband or cxi"),
        _rate("rx", "received"),
        _rate("tx", "sent"),
        Column("rx_packets_per_s", "FLOAT", 1, "packets received"),
        Column("tx_packets_per_s", "FLOAT", 1, "packets sent"),
        _rate("speed", "speed of the link as it was negotiated, one direction"),
        Column("up", "BOOLEAN", 0, "whether the link carries traffic"),
        Column("rx_errors", "BIGINT", 0, "packets received with errors; a counter"),
        Column("tx_errors", "BIGINT", 0, "packets that could not be sent; a counter"),
        Column("rx_dropped", "BIGINT", 0, "packets received and dropped; a counter"),
        Column("tx_dropped", "BIGINT", 0, "packets dropped before they were sent; a counter"),
        Column("retries", "BIGINT", 0, "packets sent again by the adapter; a counter"),
        Column("tx_waits", "BIGINT", 0, "ticks in which data waited for credits or was paused; a counter"),
        Column("congestion_marks", "BIGINT", 0, "congestion notifications received; a counter"),
        Column("link_downs", "BIGINT", 0, "times that the link went down; a counter"),
    ),
)

FS = Family(
    "fs",
    ("time_ns", "node", "fs"),
    (
        TIME,
        NODE,
        Column("fs", "VARCHAR", 0, "mount point of a file system, or name of a local disk"),
        Column("kind", "VARCHAR", 0, "lustre, nfs or disk"),
        _rate("read", "read"),
        _rate("write", "written"),
        Column("read_ops_per_s", "FLOAT", 2**-3, "reads"),
        Column("write_ops_per_s", "FLOAT", 2**-3, "writes"),
        Column("open_ops_per_s", "FLOAT", 2**-3, "opens"),
        Column("metadata_ops_per_s", "FLOAT", 2**-3, "operations that are neither read nor write, opens included"),
        Column("read_latency_s", "FLOAT", 2**-17, "mean time of a read, waiting included"),
        Column("write_latency_s", "FLOAT", 2**-17, "mean time of a write, waiting included"),
        _ratio("busy", "share of time with an operation under way (disks)"),
        Column("retransmits", "BIGINT", 0, "requests sent again (NFS); a counter"),
    ),
)

PROC = Family(
    "proc",
    ("time_ns", "node", "pid"),
    (
        TIME,
        NODE,
        Column("pid", "INTEGER", 0, "process id on the node"),
        Column("name", "VARCHAR", 0, "name of the program, at most 15 characters"),
        Column("rank", "INTEGER", 0, "rank from RANK or SLURM_PROCID, null if it has none"),
        Column("state", "VARCHAR", 0, "R running, S sleeping, D waiting for I/O, T stopped, Z ended"),
        Column("cpu_cores", "FLOAT", 2**-7, "CPU time per time: 1 is one CPU kept busy"),
        Column("threads", "INTEGER", 0, "threads"),
        Column("memory_rss_bytes", "BIGINT", 1 << 20, "memory resident"),
        _rate("read", "read through the storage layer"),
        _rate("write", "written through the storage layer"),
        Column("major_faults_per_s", "FLOAT", 2**-3, "page faults that needed I/O"),
    ),
)

CGROUP = Family(
    "cgroup",
    ("time_ns", "node"),
    (
        TIME,
        NODE,
        Column("version", "INTEGER", 0, "1 or 2"),
        Column("cpu_cores", "FLOAT", 2**-7, "CPU time of the job per time"),
        Column(
            "cpu_limit_cores", "FLOAT", 2**-7, "CPUs that the job may use: its cpuset or quota, null without a limit"
        ),
        _ratio("cpu_throttled", "share of time in which the quota held the job back"),
        Column("memory_used_bytes", "BIGINT", 1 << 20, "memory charged to the job, page cache included"),
        Column("memory_anonymous_bytes", "BIGINT", 1 << 20, "of it, memory that no file backs"),
        Column("memory_limit_bytes", "BIGINT", 1 << 20, "limit, null without one"),
        Column("memory_peak_bytes", "BIGINT", 1 << 20, "most that was used"),
        Column("oom_kills", "BIGINT", 0, "processes killed for lack of memory; a counter"),
        _ratio("cpu_pressure", "PSI cpu some of the job (version 2)"),
        _ratio("memory_pressure", "PSI memory some of the job (version 2)"),
        _ratio("io_pressure", "PSI io some of the job (version 2)"),
        _rate("read", "read from block devices"),
        _rate("write", "written to block devices"),
    ),
)

ENERGY = Family(
    "energy",
    ("time_ns", "node", "domain"),
    (
        TIME,
        NODE,
        Column("domain", "VARCHAR", 0, "node, cpu, memory, accel0 ..., package-0 ..., dram-0 ..."),
        Column("source", "VARCHAR", 0, "rapl or pm_counters"),
        Column("power_w", "FLOAT", 1, "power draw"),
        Column("energy_j", "BIGINT", 1, "energy; a counter that wraps or begins again"),
    ),
)

CLOCK = Family(
    "clock",
    ("time_ns", "node", "reference"),
    (
        TIME,
        NODE,
        Column(
            "reference",
            "VARCHAR",
            0,
            "what it was compared with: utc is the time service's idea of it, else a node",
        ),
        Column("offset_s", "DOUBLE", 1e-6, "this node's clock less the reference"),
        Column("uncertainty_s", "DOUBLE", 1e-6, "most that the offset may be wrong by"),
    ),
)

INVENTORY = Family(
    "inventory",
    ("time_ns", "node", "device", "name"),
    (
        TIME,
        NODE,
        Column("device", "VARCHAR", 0, "node, gpu0 ..., or a network interface"),
        Column("name", "VARCHAR", 0, "such as nvidia_driver, vbios, power_limit_mw, kernel, mtu"),
        Column("value", "VARCHAR", 0, "its value"),
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
        Column("kind", "VARCHAR", 0, "xid, throttle, gpu, agent, collector, phase, user, clock"),
        Column(
            "code", "VARCHAR", 0, "number or word within the kind, such as 79, restart, unavailable, not-applicable"
        ),
        Column("severity", "VARCHAR", 0, "info, warning, error"),
        Column("message", "VARCHAR", 0, "what happened, for people"),
    ),
)

_ALL = (GPU, HOST, NIC, FS, PROC, CGROUP, ENERGY, CLOCK, INVENTORY, USER, EVENTS)

FAMILIES = {family.name: family for family in _ALL}
