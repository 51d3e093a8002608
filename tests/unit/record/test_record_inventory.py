from __future__ import annotations

from pathlib import Path
from typing import Any

from piolet.core.errors import StorageError
from piolet.lab import gpus
from piolet.logbook.layout import Logbook
from piolet.record.collector import Context
from piolet.record.collectors.inventory import InventoryCollector, cpu_model
from piolet.record.devices import select
from piolet.tools.nvml import Device


def test_the_inventory_tells_what_the_node_is_made_of(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: EPYC 7713\n")
    network = tmp_path / "class/net/hsn0"
    (network / "device").mkdir(parents=True)
    (network / "mtu").write_text("9000\n")
    collector = InventoryCollector(Context({}, StorageError("none"), proc=tmp_path, sys=tmp_path))
    found = {(row["device"], row["name"]): row["value"] for _, row in collector.collect(10)}
    assert found["node", "cpu_model"] == "EPYC 7713"
    assert found["hsn0", "mtu"] == "9000"
    assert ("hsn0", "speed_megabits") not in found


def test_a_processor_is_named_on_every_architecture() -> None:
    assert cpu_model("processor : 0\nBogoMIPS : 2000.00\nCPU part\t: 0xd4f\n") == "0xd4f"
    assert cpu_model("") is None


def test_a_mig_instance_stands_for_the_gpu_that_it_is_part_of() -> None:
    made = [Device(None, index, f"GPU-{index}", "", None, "", index, simulated=False) for index in range(3)]
    divided = Device(None, 3, "GPU-3", "", None, "", 3, simulated=False, mig=("MIG-aa-1", "MIG-bb-2"))
    devices = [*made, divided]
    assert select(devices, {"CUDA_VISIBLE_DEVICES": "MIG-bb-2"}) == (divided,)
    assert select(devices, {"CUDA_VISIBLE_DEVICES": "MIG-cc"}) == tuple(devices)


def test_an_agent_without_a_kernel_log_hears_of_xids_and_knows_its_gpus(
    node: Any, logbook: Logbook, rows: Any, wait_until: Any
) -> None:
    node.agent(logbook, kernel_log=node.path / "nothing/kmsg")
    wait_until(
        lambda: rows(logbook, "SELECT 1 FROM gpu WHERE power_limit_w > 0 AND int_active_ratio IS NOT NULL LIMIT 1")
    )
    gpus.inject(node.gpu_state, 1, gpus.parse_faults({"xid": 48})[0])
    wait_until(lambda: rows(logbook, "SELECT 1 FROM events WHERE kind = 'xid'"))
    found = rows(logbook, "SELECT code, gpu, uuid, severity FROM events WHERE kind = 'xid'")
    assert found == [("48", 1, node.gpus[1].uuid, "error")]
    wait_until(lambda: rows(logbook, "SELECT 1 FROM inventory"))
    facts = rows(logbook, "SELECT device, value FROM inventory WHERE name IN ('uuid', 'nvidia_driver') ORDER BY ALL")
    assert facts == [("gpu0", node.gpus[0].uuid), ("gpu1", node.gpus[1].uuid), ("node", gpus.DRIVER_VERSION)]
    columns = "memory_clock_hz // 1000000, memory_temperature_c > 0, pcie_replays, nvlink_errors, int_active_ratio"
    assert rows(logbook, f"SELECT DISTINCT {columns} FROM gpu WHERE int_active_ratio IS NOT NULL") == [  # noqa: S608
        (2619, True, 0, 0, 0.0)
    ]
