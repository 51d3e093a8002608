"""NVIDIA GPUs through NVML: the family `gpu`, and events for throttling and lost GPUs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from piolet.core.errors import PioletError, ToolMissing
from piolet.core.nouns import Severity
from piolet.record.collector import Context, Entry, NotApplicable, event, rate
from piolet.record.devices import select
from piolet.tools import nvml
from piolet.tools.nvml import THROTTLES, Device, Gpm, GpuLost, Reading

_KIB = 1024
_MIB = 1 << 20
_HIGHEST_PERCENT = 105.0
"""GPM may say a little over 100 for a full pipe; far more is a blank in the guise of a percentage."""

_GPM_RATIOS = {
    "gr_engine_active_ratio": 1,
    "sm_active_ratio": 2,
    "sm_occupancy_ratio": 3,
    "tensor_active_ratio": 5,
    "dram_active_ratio": 10,
    "fp64_active_ratio": 11,
    "fp32_active_ratio": 12,
    "fp16_active_ratio": 13,
    "int_active_ratio": 4,
}
_GPM_RATES = {
    "pcie_tx_bytes_per_s": 20,
    "pcie_rx_bytes_per_s": 21,
    "nvlink_rx_bytes_per_s": 60,
    "nvlink_tx_bytes_per_s": 61,
    "c2c_tx_bytes_per_s": 100,
    "c2c_rx_bytes_per_s": 101,
}


class NvmlCollector:
    """Samples the GPUs that the job was given."""

    family = "gpu"

    def __init__(self, context: Context) -> None:
        self._context = context
        devices = _devices(context)
        context.devices[:] = devices
        self._gpus = [_Tracked(device) for device in select(devices, context.environ)]
        self._divided = [gpu.device.index for gpu in self._gpus if gpu.device.mig]
        if not self._gpus and not _promised(context):
            raise NotApplicable("the job was given no GPU", where="this node")
        if not self._gpus:
            raise PioletError("NVML lists no GPU", where="this node", remedy="ask Slurm for GPUs: --gpus-per-node")

    def collect(self, time_ns: int) -> list[Entry]:
        """Return a row for each GPU, all null for one that is lost, and what changed as events."""
        told, self._divided = self._divided, []
        whole = "has MIG instances: its samples are of the whole GPU, those of other jobs included"
        notes = [
            event(time_ns, "collector", "unavailable", f"nvml: GPU {index} {whole}", severity=Severity.WARNING)
            for index in told
        ]
        rows = (entry for gpu in self._gpus for entry in gpu.collect(time_ns))
        return [*notes, *(self._with_profile(*entry) for entry in rows)]

    def _with_profile(self, family: str, row: Mapping[str, Any]) -> Entry:
        """Fill what NVML does not know of a GPU by what DCGM has said since the last time."""
        told = self._context.profile.pop(str(row.get("uuid")), None) if family == "gpu" else None
        if not told:
            return family, row
        return family, {**told, **{name: value for name, value in row.items() if value is not None}, "source": "dcgm"}


def _devices(context: Context) -> tuple[Device, ...]:
    try:
        return nvml.devices(nvml.start())
    except ToolMissing as error:
        if _promised(context) or (context.proc / "driver/nvidia").exists():
            raise
        raise NotApplicable("the node has no NVIDIA driver", where="this node") from error


def _promised(context: Context) -> bool:
    """Return whether Slurm, or who set CUDA_VISIBLE_DEVICES, says that there are GPUs for the job."""
    return any(context.environ.get(name) for name in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "CUDA_VISIBLE_DEVICES"))


class _Tracked:
    """One GPU with its last reading."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._gpm: Gpm | None = None
        self._asked_for_gpm = False
        self._before: Reading | None = None
        self._lost = False

    def collect(self, time_ns: int) -> Iterator[Entry]:
        identity = {"time_ns": time_ns, "gpu": self.device.index, "uuid": self.device.uuid or None}
        try:
            after = self._read()
        except GpuLost as error:
            yield "gpu", identity
            if not self._lost:
                yield self._event(time_ns, "gpu", "lost", error.what, Severity.ERROR)
            self._lost, self._before = True, None
            return
        yield "gpu", identity | derive(self._before, after)
        yield from self._changes(time_ns, after)
        self._lost, self._before = False, after

    def _read(self) -> Reading:
        if self.device.handle is None:
            raise GpuLost("the driver lists this GPU but cannot open it")
        if not self._asked_for_gpm:
            self._gpm = Gpm(self.device.handle) if Gpm.supported(self.device.handle) else None
            self._asked_for_gpm = True
        now_s = time.monotonic()
        metrics = self._gpm.read() if self._gpm else None
        return nvml.read(self.device.handle, now_s, gpm=metrics, links=self._gpm is None)

    def _changes(self, time_ns: int, after: Reading) -> Iterator[Entry]:
        if self._lost:
            yield self._event(time_ns, "gpu", "back", "the GPU answers again", Severity.WARNING)
        before = (self._before.throttle_reasons if self._before else None) or 0
        for name, began in throttle_changes(before, after.throttle_reasons or 0):
            severity = Severity.WARNING if began else Severity.INFO
            yield self._event(time_ns, "throttle", name, f"{name} slow-down {'began' if began else 'ended'}", severity)

    def _event(self, time_ns: int, kind: str, code: str, message: str, severity: Severity) -> Entry:
        device = self.device
        return event(time_ns, kind, code, message, severity=severity, gpu=device.index, uuid=device.uuid or None)


def throttle_changes(before: int, after: int) -> list[tuple[str, bool]]:
    """Return the slow-downs that began (True) or ended (False) between two masks of clocks-event reasons."""
    return [(name, bool(after & bit)) for bit, name in THROTTLES.items() if (before ^ after) & bit]


def derive(before: Reading | None, after: Reading) -> dict[str, Any]:
    """Return the columns of `gpu` in SI units from two readings; the first reading has no rates."""
    links = _link_rates(before, after) if after.gpm is None else {}
    metrics = after.gpm or {}
    return (
        links
        | {column: ratio(metrics.get(number)) for column, number in _GPM_RATIOS.items()}
        | {column: _scaled(metrics[number], _MIB) for column, number in _GPM_RATES.items() if number in metrics}
        | {
            "gpu_util_ratio": ratio(after.utilization_percent),
            "memory_used_bytes": after.memory_used_bytes,
            "power_w": _scaled(after.power_mw, 1e-3),
            "energy_j": _scaled(after.energy_mj, 1e-3),
            "sm_clock_hz": _scaled(after.sm_clock_mhz, 1_000_000),
            "sm_clock_max_hz": _scaled(after.sm_clock_max_mhz, 1_000_000),
            "memory_clock_hz": _scaled(after.memory_clock_mhz, 1_000_000),
            "memory_temperature_c": after.memory_temperature_c,
            "power_limit_w": _scaled(after.power_limit_mw, 1e-3),
            "pcie_replays": after.pcie_replays,
            "nvlink_errors": after.nvlink_errors,
            "temperature_c": after.temperature_c,
            "throttle_reasons": after.throttle_reasons,
            "ecc_corrected": after.ecc_corrected,
            "ecc_uncorrected": after.ecc_uncorrected,
        }
    )


def ratio(percent: float | None) -> float | None:
    """Return a percentage as 0..1; what no share of time can be is None."""
    value = nvml.known(percent)
    return None if value is None or value > _HIGHEST_PERCENT else min(value / 100, 1.0)


def _scaled(value: float | None, factor: float) -> float | None:
    number = nvml.known(value)
    return None if number is None else number * factor


def _link_rates(before: Reading | None, after: Reading) -> dict[str, float | None]:
    """Return the traffic of PCIe and NVLink by difference of counters, for GPUs without GPM."""
    if before is None:
        return {}
    elapsed_s = after.time_s - before.time_s
    return {
        "pcie_tx_bytes_per_s": rate(before.pcie_tx_bytes, after.pcie_tx_bytes, elapsed_s),
        "pcie_rx_bytes_per_s": rate(before.pcie_rx_bytes, after.pcie_rx_bytes, elapsed_s),
        "nvlink_rx_bytes_per_s": _scaled(rate(before.nvlink_rx_kib, after.nvlink_rx_kib, elapsed_s), _KIB),
        "nvlink_tx_bytes_per_s": _scaled(rate(before.nvlink_tx_kib, after.nvlink_tx_kib, elapsed_s), _KIB),
    }
