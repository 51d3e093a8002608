from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from piolet.core.errors import PioletError, StorageError
from piolet.record.collector import Context
from piolet.record.collectors import host, kernel_log, nvml
from piolet.record.devices import select
from piolet.tools.kmsg import KernelLog, KernelMessage, try_open
from piolet.tools.nvml import Device, Reading, is_simulated


def _device(index: int, minor: int | None = None) -> Device:
    return Device(None, index, f"GPU-{index}a-b", "H100", 80 << 30, f"0:{index + 1:x}:0", minor, simulated=False)


NODE = tuple(_device(index, minor=index) for index in range(4))
CONFINED = (_device(0, minor=2), _device(1, minor=3))


@pytest.mark.parametrize(
    ("environ", "devices", "expected"),
    [
        ({}, NODE, [0, 1, 2, 3]),
        ({"SLURM_STEP_GPUS": "1,3"}, NODE, [1, 3]),
        ({"SLURM_JOB_GPUS": "0,1,2", "SLURM_STEP_GPUS": "2"}, NODE, [2]),
        ({"SLURM_JOB_GPUS": "0,1", "CUDA_VISIBLE_DEVICES": "3"}, NODE, [0, 1]),
        ({"SLURM_STEP_GPUS": "2,3", "CUDA_VISIBLE_DEVICES": "0,1"}, CONFINED, [0, 1]),
        ({"SLURM_STEP_GPUS": "2,3"}, [_device(0), _device(1)], [0, 1]),
        ({"SLURM_STEP_GPUS": "3"}, CONFINED, [1]),
        ({"CUDA_VISIBLE_DEVICES": "2,0"}, NODE, [2, 0]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-3a-b,GPU-1"}, NODE, [3, 1]),
        ({"CUDA_VISIBLE_DEVICES": "1,7,2"}, NODE, [1]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-"}, NODE, []),
        ({"CUDA_VISIBLE_DEVICES": ""}, NODE, []),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, NODE, []),
        ({"CUDA_VISIBLE_DEVICES": "MIG-1234"}, NODE, [0, 1, 2, 3]),
    ],
)
def test_the_gpus_of_the_job(environ: dict[str, str], devices: list[Device], expected: list[int]) -> None:
    assert [device.index for device in select(devices, environ)] == expected


def test_xids_are_matched_to_our_gpus_and_those_of_others_left_out() -> None:
    messages = [
        KernelMessage(4, 1, 90_000_000, "NVRM: Xid (PCI:0000:02:00): 79, pid=12, GPU has fallen off the bus."),
        KernelMessage(4, 2, 91_000_000, "NVRM: Xid (PCI:0000:03:00): 31, pid=13, MMU Fault"),
        KernelMessage(4, 3, 92_000_000, "NVRM: Xid (PCI:0000:99:00): 48, DBE"),
        KernelMessage(6, 4, 93_000_000, "eth0: link up"),
    ]
    found = [row for _, row in kernel_log.derive(messages, NODE, NODE[:2], 1_000 * 10**9, 100.0)]
    assert [(row["code"], row["gpu"], row["uuid"], row["time_ns"]) for row in found] == [
        ("79", 1, "GPU-1a-b", 990 * 10**9),
        ("48", None, None, 992 * 10**9),
    ]
    assert found[0]["message"] == "Xid 79 on PCI 0:2:0: pid=12, GPU has fallen off the bus."


@pytest.mark.parametrize("since_boot_s", [1.0, 900.0])
def test_a_kernel_clock_that_makes_no_sense_is_not_believed(since_boot_s: float) -> None:
    message = KernelMessage(4, 1, 90_000_000, "NVRM: Xid (PCI:0000:02:00): 79, pid=12, x")
    ((_, row),) = kernel_log.derive([message], NODE, NODE, 7, since_boot_s)
    assert row["time_ns"] == 7


def test_only_whole_new_lines_of_a_log_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    path.write_text("6,0,1,-;old\n")
    log = KernelLog.open(path)
    assert log.read_new() == []
    with path.open("a") as file:
        file.write("6,1,2,-;new\n DEVICE=x\n6,2,3,-;ha")
        file.flush()
        assert [message.text for message in log.read_new()] == ["new"]
        file.write("lf\n")
    assert [message.text for message in log.read_new()] == ["half"]
    path.write_text("6,3,4,-;after truncation\n")
    assert [message.text for message in log.read_new()] == ["after truncation"]
    log.close()


def test_the_real_kernel_log_is_read_from_its_end() -> None:
    log = try_open(Path("/dev/kmsg"))
    if isinstance(log, StorageError):
        assert "cannot read the kernel log" in str(log)
        return
    assert len(log.read_new()) < 100
    log.close()


def test_a_kernel_log_without_permission_is_a_reason() -> None:
    context = Context({}, try_open(Path("/nonexistent/kmsg")))
    with pytest.raises(StorageError, match="cannot read the kernel log: No such file"):
        kernel_log.KernelLogCollector(context)


def test_the_host_is_sampled_from_the_real_proc() -> None:
    collector = host.HostCollector(Context({}, StorageError("none")))
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        os.getpid()
    ((family, row),) = collector.collect(5)
    assert (family, row["time_ns"]) == ("host", 5)
    assert 0 < row["cpu_busy_ratio"] <= 1
    assert 0 < row["memory_used_bytes"] < row["memory_total_bytes"]


def test_what_a_kernel_lacks_is_null_and_the_rest_is_read(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    proc.mkdir()
    shutil.copy("/proc/meminfo", proc / "meminfo")
    (proc / "stat").write_text("garbage")
    collector = host.HostCollector(Context({}, StorageError("none"), proc=proc))
    ((_, row),) = collector.collect(5)
    assert row["memory_total_bytes"] > 0
    assert [row["cpu_busy_ratio"], row["io_pressure_ratio"], row["net_rx_bytes_per_s"]] == [None] * 3


def test_a_proc_with_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PioletError, match="nothing to read"):
        host.HostCollector(Context({}, StorageError("none"), proc=tmp_path))


def test_link_counters_become_rates_where_there_is_no_gpm() -> None:
    before = Reading(10.0, nvlink_tx_kib=100, pcie_rx_bytes=2**40, pcie_tx_bytes=5)
    after = Reading(12.0, nvlink_tx_kib=300, pcie_rx_bytes=7, pcie_tx_bytes=None)
    row = nvml.derive(before, after)
    assert row["nvlink_tx_bytes_per_s"] == 100 * 1024
    assert row["pcie_rx_bytes_per_s"] is None
    assert row["pcie_tx_bytes_per_s"] is None
    assert "nvlink_tx_bytes_per_s" not in nvml.derive(None, after)


def test_units_are_si() -> None:
    gpm = {2: 91.0, 5: 27.9, 10: 21.4, 60: 2.0}
    row = nvml.derive(None, Reading(1.0, 100, 5 << 30, 572_000, 12_345, 1755, 1980, 61, 4, 0, 1, gpm=gpm))
    assert {name: row[name] for name in ("gpu_util_ratio", "sm_active_ratio", "tensor_active_ratio")} == {
        "gpu_util_ratio": 1.0,
        "sm_active_ratio": 0.91,
        "tensor_active_ratio": pytest.approx(0.279),
    }
    assert row["power_w"] == pytest.approx(572)
    assert row["energy_j"] == pytest.approx(12.345)
    assert (row["sm_clock_hz"], row["sm_clock_max_hz"]) == (1_755_000_000, 1_980_000_000)
    assert row["nvlink_rx_bytes_per_s"] == 2 << 20
    assert "pcie_tx_bytes_per_s" not in row


def test_only_slow_downs_are_throttle_events() -> None:
    assert nvml.throttle_changes(0x1, 0x4) == []
    assert nvml.throttle_changes(0x0, 0x48) == [("hw_slowdown", True), ("hw_thermal", True)]
    assert nvml.throttle_changes(0x48, 0x8) == [("hw_thermal", False)]


def test_the_simulator_is_recognised_by_its_driver() -> None:
    assert is_simulated("550.54.15-sim")
    assert not is_simulated("550.54.15")
