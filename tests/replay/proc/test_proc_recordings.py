"""What kernels really print, and what the parsers read from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from piolet.record.collectors import host
from piolet.tools import proc
from piolet.tools.proc import CpuTimes, Memory, Traffic

RECORDED = Path(__file__).parent / "linux-6.18"


def _text(name: str) -> str:
    return (RECORDED / name).read_text()


def test_cpu_times() -> None:
    words = [int(word) for word in _text("stat").splitlines()[0].split()[1:9]]
    assert proc.parse_stat(_text("stat")) == CpuTimes(sum(words) - words[3] - words[4], words[3], words[4])


def test_memory() -> None:
    lines = {line.split(":")[0]: line.split() for line in _text("meminfo").splitlines()}
    found = proc.parse_meminfo(_text("meminfo"))
    assert found == Memory(int(lines["MemTotal"][1]) * 1024, int(lines["MemAvailable"][1]) * 1024)
    assert 0 < found.used_bytes < found.total_bytes


@pytest.mark.parametrize("resource", ["cpu", "memory", "io"])
def test_pressure(resource: str) -> None:
    assert f"total={proc.parse_pressure(_text(f'pressure/{resource}'))}\n" in _text(f"pressure/{resource}")


def test_network_without_loopback() -> None:
    assert proc.parse_net_dev(_text("net/dev")) == {
        "eth0": Traffic(505697025, 678421),
        "ifb0": Traffic(0, 0),
        "ifb1": Traffic(0, 0),
    }


def test_whole_disks_only() -> None:
    assert proc.parse_diskstats(_text("diskstats")) == {"vda": Traffic(16334522 * 512, 8496664 * 512)}


@pytest.mark.parametrize(
    ("name", "counted"),
    [("nvme0n1", True), ("nvme0n1p2", False), ("sda", True), ("sda3", False), ("dm-0", False), ("md127", False),
     ("mmcblk0", True), ("mmcblk0p1", False), ("sdaa12", False), ("zram0", False)],
)  # fmt: skip
def test_partitions_and_stacked_devices_would_count_twice(name: str, counted: bool) -> None:  # noqa: FBT001
    assert (name in proc.parse_diskstats(f" 8 0 {name} 1 0 2 0 1 0 2 0 0 0 0\n")) is counted


def test_the_collector_reads_all_of_it() -> None:
    reading = host.read(RECORDED)
    assert None not in (reading.cpu, reading.memory, reading.net, reading.disks)
    assert None not in (reading.cpu_pressure_us, reading.memory_pressure_us, reading.io_pressure_us)
