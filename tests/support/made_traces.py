"""Generated traces of large training jobs with incidents and look-alikes, after what is published.

A synchronous job: every GPU works in waves, all wait for the slowest. Noise comes from hashes of the seed, so it
is the same each time. Nothing here was measured on GPUs.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from piolet.core.nouns import Gpu
from piolet.logbook.layout import Logbook
from piolet.logbook.reader import Reader
from piolet.logbook.records import JobRecord, NodeAllocation
from piolet.logbook.schema import FAMILIES

START_NS = 1_767_000_000_000_000_000
SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Trace:
    """What to generate; `incidents` and `benign` name functions of this module, with the place drawn from the seed."""

    seed: int
    incidents: tuple[str, ...] = ()
    benign: tuple[str, ...] = ()
    nodes: int = 64
    gpus: int = 4
    seconds: int = 1200


@dataclass(slots=True)
class Place:
    """Where, when and how: node and GPU numbers, the second at which it begins, its strength 0..1."""

    node: int
    gpu: int
    begin: int
    strength: float
    changes: list[tuple[str, str, str, str]] = field(default_factory=list)
    events: list[tuple[int, int, int | None, str, str, str]] = field(default_factory=list)
    slow_steps: float = 1.0

    def set(self, table: str, column: str, condition: str, value: str) -> None:
        """Where `condition` holds, the column becomes `value`, in which {x} is what it was."""
        self.changes.append((table, column, condition, value))

    @property
    def here(self) -> str:
        return f"n = {self.node} AND g = {self.gpu} AND t >= {self.begin}"

    @property
    def on_node(self) -> str:
        return f"n = {self.node} AND t >= {self.begin}"

    @property
    def after(self) -> str:
        return f"t >= {self.begin}"

    def slow(self, factor: float) -> None:
        """This GPU runs at a lower clock, and all others wait for it."""
        self.set("gpu", "clock", self.here, f"{{x}} * {factor}")
        self.set("gpu", "power", self.here, f"{{x}} * {factor}")
        self.drag(factor)

    def drag(self, factor: float) -> None:
        """All other GPUs wait for this one."""
        others = f"t >= {self.begin} AND NOT (n = {self.node} AND g = {self.gpu})"
        for column, scale in (("tensor", factor), ("sm", 0.5 + 0.5 * factor), ("power", 0.4 + 0.6 * factor)):
            self.set("gpu", column, others, f"{{x}} * {scale}")


def thermal_throttle(p: Place) -> None:
    p.set("gpu", "throttle", p.here, "64")
    p.set("gpu", "temperature", p.here, "91")
    p.slow(0.85 - 0.35 * p.strength)


def power_throttle(p: Place) -> None:
    p.set("gpu", "throttle", p.here, "128")
    p.slow(0.88 - 0.38 * p.strength)


def slow_gpu(p: Place) -> None:
    p.slow(0.93 - 0.33 * p.strength)


def xid(p: Place) -> None:
    p.events.append((p.begin, p.node, p.gpu, "xid", "79", "Xid 79 on PCI 0:65:0: GPU has fallen off the bus"))
    p.events.append((p.begin + 2, p.node, p.gpu, "xid", "45", "Xid 45 on PCI 0:65:0: channel removed"))
    _stop(p, p.begin + 3)


def ecc(p: Place) -> None:
    p.set("gpu", "ecc", p.here, "2")


def nvlink(p: Place) -> None:
    p.set("gpu", "nvlink", p.here, "{x} * 0.001")
    p.set("gpu", "nvlink_errors", p.here, "40")
    p.drag(0.8)


def link_flap(p: Place) -> None:
    p.set("nic", "downs", f"n = {p.node} AND t >= {p.begin}", f"1 + (t - {p.begin}) // 60")
    p.set("nic", "up", f"n = {p.node} AND t >= {p.begin} AND (t - {p.begin}) % 60 < 8", "false")


def io_stall(p: Place) -> None:
    during = f"t >= {p.begin} AND t < {p.begin + 30 + round(120 * p.strength)}"
    p.set("host", "io_pressure", during, f"{0.3 + 0.6 * p.strength}")
    p.set("host", "iowait", during, "0.3")
    for column in ("sm", "tensor", "power", "engine", "nvlink"):
        p.set("gpu", column, during, f"{{x}} * {0.6 - 0.5 * p.strength}")


def slow_rank(p: Place) -> None:
    """The rank's own work takes longer; its GPU runs at the clock of the others."""
    p.slow_steps = 1.5 + 2 * p.strength
    p.drag(0.8)


def memory_leak(p: Place) -> None:
    p.set("host", "memory", f"n = {p.node}", f"{{x}} + t * {60e6 + 300e6 * p.strength}")


def noisy_neighbour(p: Place) -> None:
    p.set("host", "cpu", p.on_node, f"{0.72 + 0.27 * p.strength}")
    p.set("host", "cpu_pressure", p.on_node, f"{0.1 + 0.6 * p.strength}")
    p.drag(0.8)


def wrong_affinity(p: Place) -> None:
    p.set("cgroup", "cores", "true", "0.97")
    p.set("cgroup", "cores_limit", "true", "1")
    p.set("cgroup", "pressure", "true", "0.7")
    p.set("host", "cpu", "true", "0.05")


def nccl_on_tcp(p: Place) -> None:
    p.set("host", "net", "t > 40", "2.4e9 * (0.9 + 0.2 * u)")
    p.set("nic", "rate", "true", "1e5")
    p.set("gpu", "sm", "t > 40", "{x} * 0.7")


def imbalance(p: Place) -> None:
    stage = f"g = {p.gpu} AND t > 30"
    for column, scale in (("sm", 0.86), ("tensor", 0.85), ("power", 0.92)):
        scale -= 0.4 * p.strength  # noqa: PLW2901 - the weaker, the nearer to its peers
        p.set("gpu", column, stage, f"{{x}} * {scale}")


def idle_gpu(p: Place) -> None:
    for column, value in (("sm", "0"), ("tensor", "0"), ("engine", "0"), ("power", "75"), ("nvlink", "0")):
        p.set("gpu", column, f"n = {p.node} AND g = {p.gpu}", value)
    p.set("gpu", "clock", f"n = {p.node} AND g = {p.gpu}", "345e6")
    p.set("gpu", "temperature", f"n = {p.node} AND g = {p.gpu}", "30")


def input_starvation(p: Place) -> None:
    p.set("gpu", "sm", "t > 30", "CASE WHEN t % 4 = 0 THEN {x} ELSE 0.03 END")
    p.set("gpu", "tensor", "t > 30", "CASE WHEN t % 4 = 0 THEN {x} ELSE 0.01 END")
    p.set("gpu", "power", "t > 30", "{x} * 0.5")
    p.set("host", "cpu", "t > 30", "0.93")


def launch_bound(p: Place) -> None:
    p.set("gpu", "sm", "t > 30", "{x} * 0.2")
    p.set("gpu", "tensor", "t > 30", "{x} * 0.2")
    p.set("gpu", "power", "t > 30", "{x} * 0.4")


def checkpoint_stall(p: Place) -> None:
    for begin, length in ((240, 12), (480, 12), (720, 150), (960, 12)):
        _checkpoint(p, begin, length)


def hang(p: Place) -> None:
    _stop(p, p.begin)


def _stop(p: Place, begin: int) -> None:
    after = f"t >= {begin}"
    p.set("gpu", "tensor", after, "0")
    p.set("gpu", "sm", after, "0.9")
    p.set("gpu", "power", after, "260")
    p.set("gpu", "nvlink", after, "0")
    p.set("gpu", "engine", f"{after} AND n = {p.node} AND g = {p.gpu}", "0")
    p.set("gpu", "sm", f"{after} AND n = {p.node} AND g = {p.gpu}", "0")
    p.set("host", "cpu", after, "0.06")


def _checkpoint(p: Place, begin: int, length: int) -> None:
    during = f"t >= {begin} AND t < {begin + length}"
    p.events.append((begin, 0, None, "phase", "checkpoint", ""))
    p.events.append((begin + length, 0, None, "phase", "training", ""))
    for column in ("sm", "tensor", "engine", "power", "nvlink"):
        p.set("gpu", column, during, "{x} * 0.1")
    p.set("host", "disk_write", during, "3e9")


def power_capped(p: Place) -> None:
    """Every GPU is at its power cap at full load, as is usual."""
    p.set("gpu", "throttle", "t > 40", "4")
    p.set("gpu", "clock", "t > 40", "{x} * 0.93")


def warm_node(p: Place) -> None:
    p.set("gpu", "temperature", f"n = {p.node}", "{x} + 16")


def short_dip(p: Place) -> None:
    dip = f"n = {p.node} AND g = {p.gpu} AND t BETWEEN {p.begin} AND {p.begin} + 12"
    p.set("gpu", "clock", dip, "{x} * 0.5")
    p.set("gpu", "throttle", dip, "64")


def evaluation(p: Place) -> None:
    during = f"t BETWEEN {p.begin} AND {p.begin} + 100"
    for column in ("sm", "tensor", "power"):
        p.set("gpu", column, during, "{x} * 0.5")


def page_cache(p: Place) -> None:
    p.set("host", "memory", "true", "{x} + 90e9 * (1 - exp(-t / 120.0))")


def cpu_burst(p: Place) -> None:
    p.set("host", "cpu", f"n = {p.node} AND t BETWEEN {p.begin} AND {p.begin} + 15", "0.99")


def checkpoints(p: Place) -> None:
    for begin in (300, 600, 900):
        _checkpoint(p, begin, 12)


def brief_io(p: Place) -> None:
    p.set("host", "io_pressure", f"n = {p.node} AND t BETWEEN {p.begin} AND {p.begin} + 20", "0.5")


def gap(p: Place) -> None:
    p.set("gpu", "sm", f"n = {p.node} AND t BETWEEN {p.begin} AND {p.begin} + 120", "NULL")


def corrected_errors(p: Place) -> None:
    p.set("gpu", "nvlink_errors", p.here, "3")


INCIDENTS = (
    "thermal-throttle",
    "power-throttle",
    "slow-gpu",
    "slow-rank",
    "xid",
    "ecc",
    "nvlink",
    "link-flap",
    "io-stall",
    "memory-leak",
    "noisy-neighbour",
    "wrong-affinity",
    "nccl-on-tcp",
    "imbalance",
    "idle-gpu",
    "input-starvation",
    "launch-bound",
    "checkpoint-stall",
    "hang",
)
BENIGN = (
    "power_capped",
    "warm_node",
    "short_dip",
    "evaluation",
    "page_cache",
    "cpu_burst",
    "checkpoints",
    "brief_io",
    "gap",
    "corrected_errors",
)

_GPU = {
    "sm": "CASE WHEN t < 30 THEN 0.04 ELSE 0.84 + 0.06 * noise END",
    "tensor": "CASE WHEN t < 30 THEN 0 ELSE 0.50 + 0.05 * noise + 0.06 * sin(t / 3.0) END",
    "engine": "CASE WHEN t < 30 THEN 0.1 ELSE 0.97 + 0.02 * u END",
    "power": "CASE WHEN t < 30 THEN 110 ELSE 590 + 25 * noise END",
    "clock": "1.95e9 + 2e7 * u",
    "temperature": "58 + 6 * (hash(n, g, 3) / 18446744073709551615.0) + u",
    "throttle": "0",
    "nvlink": "CASE WHEN t < 30 THEN 0 ELSE 120e9 + 8e9 * noise END",
    "ecc": "0",
    "nvlink_errors": "0",
}
_HOST = {
    "cpu": "0.25 + 0.05 * u",
    "iowait": "0.01 * u",
    "cpu_pressure": "0.02 * u",
    "io_pressure": "CASE WHEN t < 30 THEN 0.2 ELSE 0.01 * u END",
    "memory": "150e9 + 2e9 * u",
    "net": "2e6 * (1 + u)",
    "disk_write": "1e6",
}
_NIC = {"rate": "2.2e10 * (0.9 + 0.2 * u)", "up": "true", "downs": "0"}
_CGROUP = {"cores": "12 + u", "cores_limit": "64", "pressure": "0.01"}


def place(trace: Trace, name: str, salt: int) -> Place:
    """Return where an incident of the trace is; the same for the same seed."""
    chance = random.Random(f"{trace.seed} {name} {salt}")  # noqa: S311 - reproducible, not secret
    return Place(
        chance.randrange(trace.nodes),
        chance.randrange(trace.gpus),
        chance.randrange(300, trace.seconds - 500),
        chance.random(),
    )


def generate(trace: Trace) -> tuple[Reader, JobRecord, dict[str, Place]]:
    """Return an open logbook, its job, and where each incident is."""
    places = {name: place(trace, name, salt) for salt, name in enumerate((*trace.incidents, *trace.benign))}
    for name, found in places.items():
        globals()[name.replace("-", "_")](found)
    database = duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "1500MB", "temp_directory": ""})
    for family in FAMILIES.values():
        database.execute(f'CREATE TABLE "{family.name}" ({", ".join(f"{c.name} {c.kind}" for c in family.columns)})')
    changes = [change for found in places.values() for change in found.changes]
    _fill(database, trace, changes)
    for found in places.values():
        database.executemany(
            "INSERT INTO events (time_ns, node, gpu, kind, code, message) VALUES (?, ?, ?, ?, ?, ?)",
            [(START_NS + t * SECOND_NS, _node(n), g, *rest) for t, n, g, *rest in found.events]
            or [(0, "", None, "", "", "")],
        )
    database.execute("DELETE FROM events WHERE time_ns = 0")
    if "slow-rank" in places:
        _report_times(database, trace, places["slow-rank"])
    return Reader(Logbook(Path("/nonexistent")), database, ()), _job(trace), places


def _node(number: int) -> str:
    return f"node{number:03d}"


def _fill(database: duckdb.DuckDBPyConnection, trace: Trace, changes: Sequence[tuple[str, str, str, str]]) -> None:
    tables = {
        "gpu": (
            _GPU,
            """INSERT INTO gpu (time_ns, node, gpu, uuid, sm_active_ratio, tensor_active_ratio, gr_engine_active_ratio,
                power_w, sm_clock_hz, sm_clock_max_hz, temperature_c, throttle_reasons, nvlink_rx_bytes_per_s,
                nvlink_tx_bytes_per_s, ecc_uncorrected, nvlink_errors)
            SELECT time_ns, node, g, 'GPU-' || node || '-' || g, greatest(least(sm, 1), 0),
                greatest(least(tensor, 1), 0),
                engine, power, clock, 1980000000, temperature, throttle, nvlink, nvlink, ecc, nvlink_errors""",
            trace.gpus,
        ),
        "host": (
            _HOST,
            """INSERT INTO host (time_ns, node, cpu_busy_ratio, cpu_iowait_ratio, cpu_pressure_ratio, io_pressure_ratio,
                memory_used_bytes, memory_total_bytes, net_rx_bytes_per_s, net_tx_bytes_per_s, disk_write_bytes_per_s)
            SELECT time_ns, node, cpu, iowait, cpu_pressure, io_pressure, memory, 800e9, net, net, disk_write""",
            1,
        ),
        "nic": (
            _NIC,
            """INSERT INTO nic (time_ns, node, nic, kind, rx_bytes_per_s, tx_bytes_per_s, up, link_downs)
            SELECT time_ns, node, 'hsn0', 'cxi', rate, rate, up, downs""",
            1,
        ),
        "cgroup": (
            _CGROUP,
            """INSERT INTO cgroup (time_ns, node, version, cpu_cores, cpu_limit_cores, cpu_pressure_ratio)
            SELECT time_ns, node, 2, cores, cores_limit, pressure""",
            1,
        ),
    }
    for name, (base, insert, devices) in tables.items():
        columns = ", ".join(f"{_changed(name, column, value, changes)} AS {column}" for column, value in base.items())
        database.execute(
            f"""{insert} FROM (SELECT n, g, t, time_ns, node, {columns} FROM (
                SELECT n, g, t, {START_NS} + t * {SECOND_NS} AS time_ns, format('node{{:03d}}', n) AS node,
                    hash(n, g, t, {trace.seed}) / 18446744073709551615.0 AS u,
                    (hash(t, n, g, {trace.seed}, 1) + 0.0) / 18446744073709551615.0
                    + hash(t, n, g, {trace.seed}, 2) / 18446744073709551615.0 - 1 AS noise
                FROM range({trace.nodes}) a(n), range({devices}) b(g), range({trace.seconds}) c(t)))"""  # noqa: S608 - all of it is ours
        )


def _report_times(database: duckdb.DuckDBPyConnection, trace: Trace, slow: Place) -> None:
    """Every rank, one a GPU, reports the seconds of its own work every fifth second."""
    database.execute(
        f"""INSERT INTO user (time_ns, node, rank, name, value, step)
        SELECT {START_NS} + t * {SECOND_NS}, format('node{{:03d}}', n), n * {trace.gpus} + g, 'compute_s',
            (0.8 + 0.1 * hash(n, g, t, {trace.seed}) / 18446744073709551615.0)
                * CASE WHEN {slow.here} THEN {slow.slow_steps} ELSE 1 END, t // 5
        FROM range({trace.nodes}) a(n), range({trace.gpus}) b(g), range(30, {trace.seconds}, 5) c(t)"""  # noqa: S608 - all of it is ours
    )


def _changed(table: str, column: str, value: str, changes: Iterable[tuple[str, str, str, str]]) -> str:
    for name, changed, condition, new in changes:
        if (name, changed) == (table, column):
            value = f"(CASE WHEN {condition} THEN {new.replace('{x}', f'({value})')} ELSE {value} END)"
    return value


def _job(trace: Trace) -> JobRecord:
    held = tuple(
        NodeAllocation(_node(n), tuple(Gpu(g, f"GPU-{_node(n)}-{g}") for g in range(trace.gpus)))
        for n in range(trace.nodes)
    )
    end = START_NS + trace.seconds * SECOND_NS
    return JobRecord(
        "1",
        "made",
        "ada",
        ("train",),
        allocation=held,
        program_started_ns=START_NS,
        program_ended_ns=end,
        sample_interval_s=1.0,
    )
