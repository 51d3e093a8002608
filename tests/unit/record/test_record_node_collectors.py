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
from piolet.record.collector import Context, NotApplicable
from piolet.record.collectors import cgroup, clock, energy, fs, nic, processes
from piolet.tools import timex
from piolet.tools.timex import KernelClock

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
    with pytest.raises(NotApplicable, match="no network adapter"):
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
    assert (usage.memory.used_bytes, usage.memory.limit_bytes, usage.memory.oom_kills) == (5 << 20, None, 2)


def test_outside_a_job_there_is_no_cgroup_to_record(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match="in no cgroup of a Slurm job"):
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
    with pytest.raises(NotApplicable, match="no energy counters"):
        energy.EnergyCollector(_context(tmp_path))
    _tree(tmp_path, {"sys/class/powercap/intel-rapl:0/name": "package-0"})
    with pytest.raises(PioletError, match="no energy counter can be read"):
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


# File systems

MOUNTINFO = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
28 27 253:0 / /tmp rw,relatime - xfs /dev/mapper/vg-tmp rw
29 27 7:0 / /snap ro - squashfs /dev/loop0 ro
30 27 0:44 / /home\\040of\\040all rw - nfs4 filer:/home rw,vers=4.2
31 27 0:44 /me /binds/home rw - nfs4 filer:/home rw,vers=4.2
32 27 0:50 / /scratch rw - lustre 10.0.0.1@o2ib:10.0.0.2@o2ib:/work rw
33 27 0:60 / /data rw - btrfs /dev/sdb rw
"""
DISKSTATS = """\
   7       0 loop0 49 0 2090 3 0 0 0 0 0 4 3 0 0 0 0
 259       0 nvme0n1 900 0 9000 90 900 0 9000 90 0 99 180
 259       2 nvme0n1p2 {reads} 0 {sectors} {ms} 50 0 100 25 0 {busy} 180 0 0 0 0
 253       0 dm-0 1 0 8 1 2 0 16 4 0 5 5
   8      16 sdb 3 0 24 1 2 0 16 4 0 5 5
"""
NFS = """\
device proc mounted on /proc with fstype proc
device filer:/home mounted on /home\\040of\\040all with fstype nfs4 statvers=1.1
\topts:\trw,vers=4.2,rsize=1048576,wsize=1048576,namlen=255,hard,proto=tcp,timeo=600,retrans=2
\tage:\t7200
\tcaps:\tcaps=0xfffbc0b7,wtmult=512,dtsize=32768,bsize=0,namlen=255
\tnfsv4:\tbm0=0xfdffbfff,bm1=0xf9be3e,bm2=0x68800,acl=0x3,sessions,pnfs=not configured
\tsec:\tflavor=1,pseudoflavor=1
\tevents:\t9 9 9 9 77 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9
\tbytes:\t111 222 333 444 {read} 600 7 8
\tRPC iostats version: 1.1  p/v: 100003/4 (nfs)
\txprt:\ttcp 0 0 2 0 10 400 400 0 500 0 2 10 10
\tper-op statistics
\t        NULL: 1 1 0 44 24 0 0 0 0
\t        READ: {reads} {sent} 0 1000 9000 100 700 {ms} 0
\t       WRITE: 5 5 0 9000 1000 10 70 90 0
\t      COMMIT: 5 5 0 9000 1000 10 70 90 0
\t        OPEN: 6 6 0 9000 1000 10 70 90 0
\tOPEN_NOATTR: 2 2 0 9000 1000 10 70 90 0
\t     GETATTR: 10 11 0 9000 1000 10 70 90 0

device filer:/home mounted on /binds/home with fstype nfs4 statvers=1.1
\tbytes:\t1 1 1 1 1 1 1 1
"""
LLITE = """\
snapshot_time             1700000000.123456789 secs.nsecs
start_time                1690000000.123456789 secs.nsecs
elapsed_time              10000000.000000000 secs.nsecs
read_bytes                {reads} samples [bytes] 4096 1048576 {read} 99999
write_bytes               2 samples [bytes] 4096 1048576 8192 99999
read                      {reads} samples [usecs] 1 900 {us} 99999
write                     2 samples [usecs] 1 900 1000 99999
open                      12 samples [usecs] 1 2 30 400
close                     12 samples [usecs] 1 2 30 400
mmap                      99 samples [usecs] 1 2 30 400
getattr                   3 samples [usecs] 1 2 30 400
inode_permission          500 samples [usecs] 1 2 30 400
"""


def _mounted(root: Path, **changes: int) -> dict[str, Any]:
    values = {"reads": 100, "sectors": 200, "ms": 50, "busy": 10, "read": 5000, "sent": 103, "us": 1000} | changes
    _tree(
        root,
        {
            "proc/self/mountinfo": MOUNTINFO,
            "proc/diskstats": DISKSTATS.format(**values).rstrip(),
            "proc/self/mountstats": NFS.format(**values),
            "proc/fs/lustre/llite/work-ffff8a0123456789/stats": LLITE.format(**values),
        },
    )
    return fs.read(root / "proc", root / "sys")


def test_every_mounted_file_system_and_disk_is_read_once(tmp_path: Path) -> None:
    found = _mounted(tmp_path)
    assert {name: counters.kind for name, counters in found.items()} == {
        "/home of all": "nfs",
        "/scratch": "lustre",
        "nvme0n1p2": "disk",
        "dm-0": "disk",
        "sdb": "disk",
    }


def test_rates_latencies_and_resets_of_file_systems(tmp_path: Path) -> None:
    before = _mounted(tmp_path)
    after = _mounted(tmp_path, reads=120, sectors=280, ms=90, busy=510, read=9096, sent=128, us=5000)
    nfs, lustre, disk = (
        fs.derive(before[name], after[name], 2.0) for name in ("/home of all", "/scratch", "nvme0n1p2")
    )
    assert (nfs["read_bytes_per_s"], nfs["read_ops_per_s"], nfs["write_ops_per_s"]) == (2048, 10, 0)
    assert (nfs["read_latency_s"], nfs["write_latency_s"]) == (pytest.approx(0.002), None)
    assert nfs["retransmits"] == 8 + 1  # those of READ and one of GETATTR
    assert (lustre["read_bytes_per_s"], lustre["read_ops_per_s"]) == (2048, 10)
    assert lustre["read_latency_s"] == pytest.approx(200e-6)
    assert (disk["read_bytes_per_s"], disk["read_ops_per_s"]) == (80 * 512 / 2, 10)
    assert (disk["read_latency_s"], disk["busy_ratio"]) == (pytest.approx(0.002), pytest.approx(0.25))
    assert fs.derive(after["/scratch"], before["/scratch"], 2.0)["read_bytes_per_s"] is None
    assert fs.derive(None, after["/scratch"], 2.0)["read_bytes_per_s"] is None


def test_metadata_counts_what_is_neither_read_nor_write(tmp_path: Path) -> None:
    found = _mounted(tmp_path)
    assert (found["/home of all"].open_ops, found["/home of all"].metadata_ops) == (8, 18)
    assert (found["/scratch"].open_ops, found["/scratch"].metadata_ops) == (12, 27)
    assert found["sdb"].metadata_ops is None


def test_nfs_3_has_no_open_and_an_old_lustre_no_times() -> None:
    nfs = fs.parse_mountstats(NFS.format(read=1, reads=1, sent=1, ms=1).replace("OPEN", "LOOKUP"))["/home of all"]
    assert nfs.open_ops is None
    old = fs.parse_llite("read_bytes 3 samples [bytes] 1 2 300\nopen 4 samples [regs]\nread 3 samples [regs]\n")
    assert (old.read_bytes, old.read_ops, old.open_ops, old.read_s) == (300, 3, 4, None)
    assert fs.parse_llite("snapshot_time 1.5 secs.nsecs\n").read_bytes == 0


def test_lustre_that_hides_its_counters_is_told_once(tmp_path: Path) -> None:
    lustre = next(line for line in MOUNTINFO.splitlines() if "lustre" in line)
    _tree(tmp_path, {"proc/self/mountinfo": lustre})
    collector = fs.FileSystemCollector(_context(tmp_path))
    (told,) = collector.collect(1)
    assert told[1]["code"] == "unavailable"
    assert told[1]["message"] == "fs: the counters of /scratch can be read by root only"
    assert collector.collect(2) == []


def test_the_disk_of_this_machine_counts_what_is_written(tmp_path: Path) -> None:
    collector = fs.FileSystemCollector(Context({}, StorageError("no log")))
    with (tmp_path / "data").open("wb") as file:
        file.write(os.urandom(1 << 20))
        os.fsync(file.fileno())
    rows = [row for family, row in collector.collect(1) if family == "fs"]
    assert rows
    assert all(row["read_bytes_per_s"] >= 0 for row in rows)
    assert all(0 <= row["busy_ratio"] <= 1 for row in rows if row["kind"] == "disk")
    with pytest.raises(NotApplicable, match="no NFS, Lustre or local disk"):
        fs.FileSystemCollector(_context(tmp_path))


# The clock

KEPT = timex.parse(offset=-1500, max_error_us=4000, status=0x2001)


def test_the_unit_of_the_kernels_offset_is_in_its_status() -> None:
    assert timex.parse(-1500, 4000, 0x2001) == KernelClock(synchronised=True, to_add_s=-1.5e-6, max_error_s=4e-3)
    assert timex.parse(-1500, 16_000_000, 0x41) == KernelClock(synchronised=False, to_add_s=-1.5e-3, max_error_s=16.0)


def test_a_clock_from_which_the_kernel_takes_is_ahead() -> None:
    ((family, row),) = clock.ClockCollector(_context(Path("/none")), lambda: KEPT).collect(5)
    assert (family, row["time_ns"], row["reference"]) == ("clock", 5, "utc")
    assert (row["offset_s"], row["uncertainty_s"]) == (pytest.approx(1.5e-6), pytest.approx(4e-3))


def test_a_clock_that_nobody_keeps_is_not_applicable_and_one_given_up_is_a_failure() -> None:
    lost = timex.parse(0, 16_000_000, 0x40)
    with pytest.raises(NotApplicable, match="no time service"):
        clock.ClockCollector(_context(Path("/none")), lambda: lost)
    states = iter((KEPT, lost))
    collector = clock.ClockCollector(_context(Path("/none")), lambda: next(states))
    with pytest.raises(PioletError, match="no longer keeps the clock"):
        collector.collect(1)


def test_the_kernel_of_this_machine_bounds_its_error() -> None:
    told = timex.kernel_clock()
    assert told.max_error_s >= 0
    assert abs(told.to_add_s) <= 0.5, "adjtimex(2): the kernel slews by at most half a second"
