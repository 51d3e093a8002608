"""DCGM and AMD SMI, of which neither was at hand: programs and modules that answer in the form of their documents."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from piolet.core.errors import PioletError, StorageError, ToolMissing
from piolet.record import dcgm
from piolet.record.collector import Context, NotApplicable
from piolet.record.collectors.amd_smi import AmdSmiCollector, derive
from piolet.record.collectors.dcgm import DcgmCollector
from piolet.record.collectors.nvml import NvmlCollector
from piolet.tools.amd_smi import Reading

RECORDED = Path(__file__).parents[2] / "replay/importing/dcgm-3.3"
FIRST, SECOND = "GPU-34319582-d595-d1c7-d1d2-179bcfa61660", "GPU-0d5be1b0-62a4-4be1-9b2e-1c1f62f9c1aa"

DCGMI = """#!/bin/sh
if [ "$1" = discovery ]; then cat {discovery}; exit; fi
echo "#Entity   GRACT   SMACT   SMOCC   TENSO   DRAMA   FP64A   FP32A   FP16A   PCITX   PCIRX   NVLTX   NVLRX"
echo "ID"
while :; do
    echo "GPU 0     0.970   0.910   0.240   0.279   0.214   0.000   0.054   0.010   1000    2000    90000000000   N/A"
    echo "GPU 1     N/A     N/A     N/A     N/A     N/A     N/A     N/A     N/A     N/A     N/A     N/A     N/A"
    sleep 0.05
done
"""


def context(**values: Any) -> Context:
    return Context({}, StorageError("none"), **values)


@pytest.fixture
def dcgmi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `dcgmi` on PATH that answers as DCGM 3.3 prints."""
    program = tmp_path / "bin/dcgmi"
    program.parent.mkdir()
    program.write_text(DCGMI.format(discovery=RECORDED / "discovery.txt"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


def test_dmon_is_read_as_it_prints(dcgmi: Path, wait_until: Callable[..., Any]) -> None:
    source = dcgm.source("auto", 1.0)
    assert isinstance(source, dcgm.Dmon)
    try:
        found: dict[str, Any] = {}
        wait_until(lambda: found.update(source.read()) or set(found) == {FIRST, SECOND})
        assert (found[FIRST]["sm_active_ratio"], found[FIRST]["nvlink_tx_bytes_per_s"]) == (0.91, 9e10)
        assert found[FIRST]["nvlink_rx_bytes_per_s"] is None
        assert set(found[SECOND].values()) == {None}
    finally:
        source.close()
    with pytest.raises(PioletError, match="dcgmi dmon ended"):
        [source.read() for _ in range(2)]
    assert dcgmi.exists()


def test_without_dcgm_there_is_nothing_to_collect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing):
        dcgm.source("auto", 1.0)
    with pytest.raises(NotApplicable, match="no DCGM"):
        DcgmCollector(context())
    with pytest.raises(NotApplicable, match="switched off"):
        DcgmCollector(context(dcgm="off"))
    with pytest.raises(PioletError, match="is no address"):
        dcgm.source("localhost:9400", 1.0)


READER = """
class DcgmReader:
    def __init__(self, fieldIds, updateFrequency):
        assert 54 in fieldIds and 1004 in fieldIds and updateFrequency == 500000, (fieldIds, updateFrequency)
    def GetLatestGpuValuesAsFieldIdDict(self):
        return {7: {54: "GPU-7", 1004: 0.279, 155: 572.0, 156: 2000, 203: 9223372036854775794, 1005: 140737488355328.0}}
"""


def test_the_bindings_of_the_host_engine_are_used_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "DcgmReader.py").write_text(READER)
    monkeypatch.setattr(dcgm, "BINDINGS", (tmp_path,))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "DcgmReader", raising=False)
    collector = DcgmCollector(context(interval_s=0.5))
    ((family, row),) = collector.collect(5)
    sys.modules.pop("DcgmReader")
    assert family == "gpu"
    assert row == {
        "time_ns": 5,
        "gpu": 0,
        "uuid": "GPU-7",
        "source": "dcgm",
        "tensor_active_ratio": 0.279,
        "power_w": 572.0,
        "energy_j": 2.0,
        "gpu_util_ratio": None,
        "dram_active_ratio": None,
    }


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write((RECORDED / "exporter.prom").read_bytes())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def exporter() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_exporters_page_that_did_not_change_says_nothing_new(exporter: str) -> None:
    source = dcgm.source(exporter, 1.0)
    found = source.read()
    assert found[FIRST]["tensor_active_ratio"] == 0.279
    assert found[SECOND] == {"sm_clock_hz": 345e6}
    assert source.read() == {}


def test_an_exporter_that_is_gone_is_an_error_that_names_it() -> None:
    with pytest.raises(PioletError, match="does not answer"):
        dcgm.source("http://127.0.0.1:1/metrics", 1.0).read()


def test_what_dcgm_says_fills_what_nvml_does_not_know() -> None:
    collector = object.__new__(NvmlCollector)
    collector._context = context(profile={"GPU-1": {"tensor_active_ratio": 0.5, "power_w": 1.0}})
    row = {"time_ns": 1, "uuid": "GPU-1", "power_w": 300.0, "tensor_active_ratio": None}
    filled = {"time_ns": 1, "uuid": "GPU-1", "power_w": 300.0, "tensor_active_ratio": 0.5, "source": "dcgm"}
    assert collector._with_profile("gpu", row) == ("gpu", filled)
    assert collector._with_profile("gpu", row) == ("gpu", row)


METRICS = {
    "average_gfx_activity": 98,
    "average_umc_activity": 45,
    "current_socket_power": 700,
    "average_socket_power": "N/A",
    "temperature_hotspot": 61,
    "temperature_mem": 49,
    "current_gfxclk": "N/A",
    "current_gfxclks": [2100, 2098, "N/A"],
    "current_uclk": 1300,
    "pcie_replay_count_acc": 0,
    "xgmi_read_data_acc": [1000, "N/A"],
    "xgmi_write_data_acc": [500, 500],
}


class AmdSmiException(Exception):  # noqa: N818 - the library's own name
    pass


def library() -> ModuleType:
    """The functions of amdsmi 7.0 that are called, with one MI300X."""
    module = ModuleType("amdsmi")
    calls = {
        "amdsmi_init": None,
        "amdsmi_get_processor_handles": ["handle"],
        "amdsmi_get_gpu_device_uuid": "f6ff74a1-0000-1000-80a1-1c1f62f9c1aa",
        "amdsmi_get_gpu_device_bdf": "0000:0c:00.0",
        "amdsmi_get_gpu_asic_info": {"market_name": "AMD Instinct MI300X"},
        "amdsmi_get_gpu_vram_usage": {"vram_total": 196592, "vram_used": 1024},
        "amdsmi_get_gpu_metrics_info": METRICS,
        "amdsmi_get_energy_count": {"energy_accumulator": 2_000_000, "counter_resolution": 15.259},
        "amdsmi_get_power_cap_info": {"power_cap": 750_000_000},
        "amdsmi_get_clock_info": {"clk": 2100, "min_clk": 132, "max_clk": 2100},
    }
    for name, answer in calls.items():
        setattr(module, name, lambda *_, answer=answer: answer)

    def refuse(*_: object) -> None:
        raise AmdSmiException("not supported")

    module.amdsmi_get_gpu_total_ecc_count = refuse
    module.AmdSmiException = AmdSmiException
    module.AmdSmiClkType = SimpleNamespace(GFX=0)
    return module


def test_an_amd_gpu_is_sampled_in_the_same_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotApplicable, match="no AMD driver"):
        AmdSmiCollector(context(sys=tmp_path))
    (tmp_path / "class/kfd").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "amdsmi", library())
    ((_, row),) = AmdSmiCollector(context(sys=tmp_path)).collect(3)
    assert (row["gpu"], row["uuid"][:8], row["source"]) == (0, "f6ff74a1", "amd-smi")
    assert (row["gpu_util_ratio"], row["dram_active_ratio"], row["power_w"]) == (0.98, 0.45, 700)
    assert (row["sm_clock_hz"], row["memory_used_bytes"], row["power_limit_w"]) == (2099e6, 1 << 30, 750)
    assert row["energy_j"] == pytest.approx(30.518)
    assert (row["nvlink_rx_bytes_per_s"], row["ecc_corrected"]) == (None, None)


def test_the_traffic_of_infinity_fabric_is_that_of_all_links() -> None:
    before = Reading(10.0, METRICS)
    later = METRICS | {"xgmi_read_data_acc": [3000, "N/A"], "xgmi_write_data_acc": [1500, 100]}
    row = derive(before, Reading(12.0, later))
    assert row["nvlink_rx_bytes_per_s"] == 1000 * 1024
    assert row["nvlink_tx_bytes_per_s"] == 500 * 1024, "a link whose counter began again has no rate"


def test_an_amd_driver_without_its_package_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "class/kfd").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    with pytest.raises(PioletError, match="its Python package is not"):
        AmdSmiCollector(context(sys=tmp_path))
