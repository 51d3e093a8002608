"""Adapters, cgroups, energy and processes. What this machine lacks is written in the form that the kernel documents."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from piolet import metrics
from piolet.core.errors import PioletError, StorageError
from piolet.record.collector import Context
from piolet.record.collectors import cgroup, energy, nic, processes

IDLE_V1 = "9:name=systemd:/\n4:memory:/slurm/uid_0/job_12/step_0/task_0\n3:cpu,cpuacct:/slurm/uid_0/job_12/step_0\n"
V2 = "0::/system.slice/slurmstepd.scope/job_12/step_0/user/task_0\n"
PRESSURE = "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"


def _tree(root: Path, files: Mapping[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def _context(root: Path, **changes: Any) -> Context:
    return Context({}, StorageError("no log"), proc=root / "proc", sys=root / "sys", **changes)


# Adapters


def _ethernet(name: str, rx_bytes: int, *, physical: bool = True, speed: int = 200_000) -> dict[str, object]:
    base = f"sys/class/net/{name}"
    files = {
        f"{base}/statistics/{way}_{kind}": 0
        for way in ("rx", "tx")
        for kind in ("bytes", "packets", "errors", "dropped")
    }
    named = {f"{base}/type": 1, f"{base}/speed": speed, f"{base}/operstate": "up", f"{base}/carrier_down_count": 2}
    return files | named | {f"{base}/statistics/rx_bytes": rx_bytes} | ({f"{base}/device/x": ""} if physical else {})


def test_ethernet_has_rates_totals_speed_and_state(tmp_path: Path) -> None:
    _tree(tmp_path, _ethernet("hsn0", 1000) | {"sys/class/net/lo/type": 772} | _ethernet("veth1", 5, physical=False))
    before = nic.read(tmp_path / "sys/class")
    _tree(tmp_path, {"sys/class/net/hsn0/statistics/rx_bytes": 9000, "sys/class/net/hsn0/statistics/rx_errors": 3})
    after = nic.read(tmp_path / "sys/class")
    assert list(after) == ["hsn0"]
    row = nic.derive(before["hsn0"], after["hsn0"], 2.0)
    assert (row["rx_bytes_per_s"], row["rx_errors"], row["link_downs"]) == (4000, 3, 2)
    assert (row["kind"], row["up"], row["speed_bytes_per_s"]) == ("ethernet", True, 25e9)
    assert nic.derive(None, after["hsn0"], 2.0)["rx_bytes_per_s"] is None


def test_a_counter_that_fell_is_no_rate_and_an_unknown_speed_is_none(tmp_path: Path) -> None:
    before = nic.read(_tree(tmp_path, _ethernet("eth0", 1000)) / "sys/class")
    after = nic.read(_tree(tmp_path, _ethernet("eth0", 10, speed=-1)) / "sys/class")
    row = nic.derive(before["eth0"], after["eth0"], 1.0)
    assert row["rx_bytes_per_s"] is None
    assert row["speed_bytes_per_s"] is None


def test_infiniband_counts_words_and_sums_retries(tmp_path: Path) -> None:
    port = "sys/class/infiniband/mlx5_0/ports/1"
    counters = {
        "counters/port_rcv_data": 100,
        "counters/port_xmit_data": 50,
        "counters/port_xmit_wait": 7,
        "hw_counters/packet_seq_err": 2,
        "hw_counters/rnr_nak_retry_err": 3,
    }
    files = {f"{port}/{name}": value for name, value in counters.items()}
    _tree(tmp_path, files | {f"{port}/state": "4: ACTIVE", f"{port}/rate": "400 Gb/sec (4X NDR)"})
    before = nic.read(tmp_path / "sys/class")["mlx5_0/1"]
    _tree(tmp_path, {f"{port}/counters/port_rcv_data": 600})
    row = nic.derive(before, nic.read(tmp_path / "sys/class")["mlx5_0/1"], 1.0)
    assert (row["kind"], row["rx_bytes_per_s"], row["tx_bytes_per_s"]) == ("infiniband", 2000, 0)
    assert (row["retries"], row["tx_waits"], row["up"], row["speed_bytes_per_s"]) == (5, 7, True, 50e9)


def test_slingshot_counters_carry_their_time(tmp_path: Path) -> None:
    base = "sys/class/cxi/cxi0/device/telemetry"
    _tree(
        tmp_path,
        {
            f"{base}/hni_sts_rx_ok_octets": "1000@1700000000.5",
            f"{base}/hni_sts_tx_ok_octets": "7@1700000000.5",
            f"{base}/hni_tx_paused_0": "5@1.0",
            f"{base}/hni_tx_paused_3": "6@1.0",
        },
    )
    port = nic.read(tmp_path / "sys/class")["cxi0"]
    row = nic.derive(port, port, 1.0)
    assert (row["kind"], row["rx_bytes_per_s"], row["tx_waits"], row["retries"]) == ("cxi", 0, 11, None)


def test_this_machine_has_an_adapter_and_a_bare_tree_has_none(tmp_path: Path) -> None:
    rows = nic.NicCollector(Context({}, StorageError("no log"))).collect(1)
    assert {row["time_ns"] for _, row in rows} == {1}
    assert all(row["rx_bytes_per_s"] is None or row["rx_bytes_per_s"] >= 0 for _, row in rows)
    with pytest.raises(PioletError, match="no network adapter"):
        nic.NicCollector(_context(tmp_path))


# Cgroups


def test_the_job_is_the_cgroup_up_to_its_number() -> None:
    assert cgroup.job_paths(V2) == {"": "system.slice/slurmstepd.scope/job_12"}
    assert cgroup.job_paths(IDLE_V1) == dict.fromkeys(("memory", "cpu", "cpuacct"), "slurm/uid_0/job_12")
    assert cgroup.job_paths("0::/user.slice/job_x\n") == {}


def test_version_2_of_a_job(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/system.slice/slurmstepd.scope/job_12"
    files = {
        "cpu.stat": "usage_usec 1000000\nthrottled_usec 0",
        "cpu.max": "max 100000",
        "memory.current": 3 << 30,
        "cpuset.cpus.effective": "0-3,8",
        "memory.max": "max",
        "memory.peak": 4 << 30,
        "memory.stat": "anon 99\nfile 1",
        "memory.events": "low 0\noom_kill 1",
        "cpu.pressure": PRESSURE.format(0),
        "io.stat": "8:0 rbytes=10 wbytes=2\n8:16 rbytes=5 wbytes=1",
    }
    _tree(tmp_path, {f"{base}/{name}": value for name, value in files.items()} | {"proc/self/cgroup": V2})
    collector = cgroup.CgroupCollector(_context(tmp_path))
    before = cgroup.read(tmp_path / "sys/fs/cgroup", cgroup.job_paths(V2))
    _tree(
        tmp_path,
        {
            f"{base}/cpu.stat": "usage_usec 7000000\nthrottled_usec 500000",
            f"{base}/cpu.pressure": PRESSURE.format(1_000_000),
            f"{base}/io.stat": "8:0 rbytes=2010 wbytes=2",
        },
    )
    row = cgroup.derive(before, cgroup.read(tmp_path / "sys/fs/cgroup", cgroup.job_paths(V2)), 2.0)
    assert (row["version"], row["cpu_cores"], row["cpu_limit_cores"], row["cpu_throttled_ratio"]) == (2, 3.0, 5, 0.25)
    assert (row["memory_limit_bytes"], row["memory_peak_bytes"], row["memory_anonymous_bytes"]) == (None, 4 << 30, 99)
    assert (row["oom_kills"], row["cpu_pressure_ratio"], row["io_pressure_ratio"]) == (1, 0.5, None)
    assert (row["read_bytes_per_s"], row["write_bytes_per_s"]) == (997.5, None)
    assert collector.collect(5)[0][1]["time_ns"] == 5


def test_version_1_of_a_job(tmp_path: Path) -> None:
    files = {
        "memory/slurm/uid_0/job_12/memory.usage_in_bytes": 5 << 20,
        "memory/slurm/uid_0/job_12/memory.limit_in_bytes": 9223372036854771712,
        "memory/slurm/uid_0/job_12/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2",
        "cpuacct/slurm/uid_0/job_12/cpuacct.usage": 4_000_000_000,
        "cpu/slurm/uid_0/job_12/cpu.cfs_quota_us": 250_000,
        "cpu/slurm/uid_0/job_12/cpu.cfs_period_us": 100_000,
    }
    root = _tree(tmp_path / "cgroup", files)
    usage = cgroup.read(root, cgroup.job_paths(IDLE_V1))
    assert (usage.version, usage.cpu_us, usage.cpu_limit_cores) == (1, 4_000_000, 2.5)
    assert (usage.memory_used_bytes, usage.memory_limit_bytes, usage.oom_kills) == (5 << 20, None, 2)


def test_outside_a_job_there_is_no_cgroup_to_record(tmp_path: Path) -> None:
    with pytest.raises(PioletError, match="in no cgroup of a job"):
        cgroup.CgroupCollector(_context(_tree(tmp_path, {"proc/self/cgroup": "0::/user.slice"})))


# Energy


def test_cray_counters_go_before_rapl(tmp_path: Path) -> None:
    base = "sys/cray/pm_counters"
    _tree(
        tmp_path,
        {
            f"{base}/energy": "5000 J 1700000000 us",
            f"{base}/power": "600 W 1700000000 us",
            f"{base}/accel0_energy": "1000 J 1 us",
            f"{base}/accel0_power": "90 W 1 us",
            f"{base}/generation": 3,
            "sys/class/powercap/intel-rapl:0/energy_uj": 1,
        },
    )
    rows = {row["domain"]: row for _, row in energy.EnergyCollector(_context(tmp_path)).collect(1)}
    assert sorted(rows) == ["accel0", "node"]
    assert (rows["node"]["energy_j"], rows["node"]["power_w"], rows["node"]["source"]) == (5000, 600, "pm_counters")


def test_rapl_wraps_around(tmp_path: Path) -> None:
    base = "sys/class/powercap"
    _tree(
        tmp_path,
        {
            f"{base}/intel-rapl:0/name": "package-0",
            f"{base}/intel-rapl:0/energy_uj": 90_000_000,
            f"{base}/intel-rapl:0/max_energy_range_uj": 100_000_000,
            f"{base}/intel-rapl:0:0/name": "dram",
            f"{base}/intel-rapl:0:0/energy_uj": 4_000_000,
            f"{base}/intel-rapl/enabled": 1,
        },
    )
    before = energy.read(tmp_path / "sys")
    assert sorted(before) == ["dram-0", "package-0"]
    _tree(tmp_path, {f"{base}/intel-rapl:0/energy_uj": 20_000_000, f"{base}/intel-rapl:0:0/energy_uj": 1_000_000})
    after = energy.read(tmp_path / "sys")
    assert energy.derive(before["package-0"], after["package-0"], 2.0)["power_w"] == pytest.approx(15)
    assert energy.derive(before["dram-0"], after["dram-0"], 2.0)["power_w"] is None


def test_without_a_counter_the_remedy_is_said(tmp_path: Path) -> None:
    with pytest.raises(PioletError, match="no energy counter"):
        energy.EnergyCollector(_context(tmp_path))


# Processes


def test_the_jobs_own_processes_are_found_with_their_ranks() -> None:
    script = "import sys, time; print(flush=True); [None for _ in iter(lambda: time.time() < 0, True)]"
    marked = os.environ | {metrics.VARIABLE: "piolet-metrics/abc/{node}", "RANK": "3"}
    other = os.environ | {metrics.VARIABLE: "piolet-metrics/other/{node}"}
    argv = [sys.executable, "-c", script]
    with (
        subprocess.Popen(argv, env=marked, stdout=subprocess.PIPE) as ours,
        subprocess.Popen(argv, env=other, stdout=subprocess.PIPE) as stranger,
    ):
        try:
            for each in (ours, stranger):
                assert each.stdout is not None
                each.stdout.readline()
            collector = processes.ProcessCollector(Context({}, StorageError("no log"), metrics="piolet-metrics/abc/n1"))
            time.sleep(0.3)
            rows = [row for _, row in collector.collect(9)]
        finally:
            ours.kill()
            stranger.kill()
    assert [(row["pid"], row["rank"], row["time_ns"]) for row in rows] == [(ours.pid, 3, 9)]
    assert rows[0]["cpu_cores"] > 0
    assert rows[0]["memory_rss_bytes"] > 1 << 20
    assert rows[0]["name"].startswith("python")


def test_a_name_may_hold_parentheses_and_a_reused_number_has_no_rate() -> None:
    stat = "42 (a) (b)) S 1 1 1 0 -1 4194560 100 0 {faults} 0 {cpu} 10 0 0 20 0 8 0 {started} 1000000 512"
    first = processes.parse(42, stat.format(faults=1, cpu=100, started=7), "rchar: 5\nread_bytes: 1000\nwrite_bytes: 0")
    later = processes.parse(42, stat.format(faults=3, cpu=300, started=7), "read_bytes: 5000\nwrite_bytes: 0")
    reused = processes.parse(42, stat.format(faults=3, cpu=300, started=8), None)
    assert first is not None
    assert later is not None
    assert reused is not None
    assert (later.name, later.state, later.threads) == ("a) (b)", "S", 8)
    row = processes.derive(first, later, 2.0)
    assert row["cpu_cores"] == pytest.approx(100 / os.sysconf("SC_CLK_TCK"))
    assert (row["major_faults_per_s"], row["read_bytes_per_s"]) == (1, 2000)
    assert processes.derive(first, reused, 2.0)["cpu_cores"] is None
    assert processes.parse(42, "garbage", None) is None


def test_processes_are_read_at_most_every_ten_seconds() -> None:
    assert processes.ProcessCollector.least_interval_s == 10.0
