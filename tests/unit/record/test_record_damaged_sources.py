"""Files of the kernel that are torn, empty or of another form: a collector gives what is left, or says why not."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from piolet.core.errors import PioletError, StorageError
from piolet.record.collector import Collector, Context
from piolet.record.collectors.cgroup import CgroupCollector
from piolet.record.collectors.energy import EnergyCollector
from piolet.record.collectors.fs import FileSystemCollector
from piolet.record.collectors.host import HostCollector
from piolet.record.collectors.nic import NicCollector
from piolet.record.collectors.processes import ProcessCollector

JOB = "sys/fs/cgroup/slurm/job_12"
NIC = "sys/class/net/hsn0"
PORT = "sys/class/infiniband/mlx5_0/ports/1"
NFS = (
    "device filer:/home mounted on /home with fstype nfs4 statvers=1.1\n\tbytes:\t1 2 3 4 5 6 7 8\n"
    "\t        READ: 1 1 0 1000 9000 100 700 8 0\n\t       OPEN: 6 6 0 9000 1000 10 70 90 0\n"
)
SOURCES: dict[Callable[[Context], Collector], dict[str, str]] = {
    HostCollector: {
        "proc/stat": "cpu  1 2 3 4 5 6 7 8 9 10",
        "proc/meminfo": "MemTotal:       100 kB\nMemAvailable:   50 kB",
        "proc/pressure/io": "some avg10=0.00 avg60=0.00 avg300=0.00 total=5",
        "proc/net/dev": "a\nb\n eth0: 1 2 3 4 5 6 7 8 9 10 11 12",
        "proc/diskstats": " 8 0 sda 1 0 8 1 2 0 16 4 0 5 5",
    },
    NicCollector: {
        f"{NIC}/type": "1",
        f"{NIC}/device/x": "",
        f"{NIC}/speed": "200000",
        f"{NIC}/statistics/rx_bytes": "7",
        f"{PORT}/counters/port_rcv_data": "5",
        f"{PORT}/state": "4: ACTIVE",
        f"{PORT}/rate": "400 Gb/sec (4X NDR)",
        "sys/class/cxi/cxi0/device/telemetry/hni_sts_rx_ok_octets": "1000@1700000000.5",
    },
    FileSystemCollector: {
        "proc/self/mountinfo": (
            "27 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 27 0:44 / /home rw - nfs4 filer:/home rw\n"
            "32 27 0:50 / /scratch rw - lustre 10.0.0.1@o2ib:/work rw"
        ),
        "proc/diskstats": " 8 1 sda1 1 0 8 1 2 0 16 4 0 5 5 0 0 0 0",
        "proc/self/mountstats": NFS,
        "proc/fs/lustre/llite/work-ffff8a01/stats": "read_bytes 3 samples [bytes] 1 2 300\nopen 4 samples [usecs]",
    },
    CgroupCollector: {
        "proc/self/cgroup": "0::/slurm/job_12/step_0",
        f"{JOB}/cpu.stat": "usage_usec 1\nthrottled_usec 0",
        f"{JOB}/cpu.max": "200000 100000",
        f"{JOB}/cpuset.cpus.effective": "0-3,8",
        f"{JOB}/memory.max": "max",
        f"{JOB}/memory.events": "low 0\noom_kill 1",
        f"{JOB}/io.stat": "8:0 rbytes=10 wbytes=2",
    },
    EnergyCollector: {
        "sys/class/powercap/intel-rapl:0/name": "package-0",
        "sys/class/powercap/intel-rapl:0/energy_uj": "90000000",
        "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "100000000",
    },
    ProcessCollector: {
        "proc/42/stat": "42 (a) S 1 1 1 0 -1 4194560 100 0 1 0 2 10 0 0 20 0 8 0 7 1000000 512",
        "proc/42/io": "read_bytes: 1\nwrite_bytes: 2",
        "proc/42/environ": "PIOLET_METRICS=job/n1\0RANK=1\0",
    },
}


def _damaged(chance: random.Random, text: str) -> bytes:
    cut, word = text[: chance.randrange(len(text) + 1)], chance.choice(text.split() or ["x"])
    other = text.replace(word, chance.choice(["x", "-1", "", "9" * 40, "max", "1/0"]), 1)
    return chance.choice([b"", b"\n\n", b"\xff\xfe\0", cut.encode(), other.encode(), b"a b c d e f g h i j k l m n"])


@pytest.mark.parametrize("kind", SOURCES)
def test_a_damaged_source_gives_what_is_left_or_says_why(tmp_path: Path, kind: Callable[[Context], Collector]) -> None:
    files = SOURCES[kind]
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    context = Context({}, StorageError("none"), proc=tmp_path / "proc", sys=tmp_path / "sys", metrics="job/n1")
    assert list(kind(context).collect(1)), "the files as they should be"
    chance = random.Random(1)  # noqa: S311 - the same damage every time
    for _ in range(50):
        name = chance.choice(list(files))
        (tmp_path / name).write_bytes(_damaged(chance, files[name]))
        try:
            rows = [*kind(context).collect(1)]
        except PioletError:
            rows = []
        assert all(row["time_ns"] == 1 for _, row in rows)
        (tmp_path / name).write_text(files[name] + "\n")
