"""AMD GPUs through AMD SMI: the family `gpu`, in the same columns as NVIDIA's where they mean the same.

The graphics engine's activity stands for the GPU's, that of the memory controllers for the memory's; there is no
counter of matrix cores.
"""

from __future__ import annotations

import time
from typing import Any

from piolet.core.errors import PioletError, ToolMissing
from piolet.record.collector import Context, Entry, NotApplicable, rate
from piolet.record.devices import select
from piolet.tools.amd_smi import AmdSmi, Reading, number

_KIB, _MIB = 1024, 1 << 20
_VISIBLE = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


class AmdSmiCollector:
    """Samples the GPUs that the job was given."""

    family = "gpu"

    def __init__(self, context: Context) -> None:
        if not (context.sys / "class/kfd").exists() and not (context.sys / "module/amdgpu").exists():
            raise NotApplicable("the node has no AMD driver", where=str(context.sys / "module/amdgpu"))
        try:
            self._smi = AmdSmi()
        except ToolMissing as error:
            raise PioletError("AMD's driver is there, and its Python package is not", remedy=error.remedy) from error
        devices = self._smi.devices()
        visible = next((context.environ[name] for name in _VISIBLE if name in context.environ), None)
        as_cuda = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        self._devices = select(devices, {**context.environ, **as_cuda})
        self._before: dict[int, Reading] = {}
        if not self._devices:
            raise NotApplicable("the job was given no AMD GPU", where="this node")
        context.devices.extend(device for device in devices if device not in context.devices)

    def collect(self, time_ns: int) -> list[Entry]:
        """Return a row for each GPU."""
        rows: list[Entry] = []
        for device in self._devices:
            after = self._smi.read(device.handle, time.monotonic())
            identity = {"time_ns": time_ns, "gpu": device.index, "uuid": device.uuid or None, "source": "amd-smi"}
            rows.append(("gpu", identity | derive(self._before.get(device.index), after)))
            self._before[device.index] = after
        return rows


def derive(before: Reading | None, after: Reading) -> dict[str, Any]:
    """Return the columns of `gpu` in SI units from two readings; the first has no rates."""
    metrics = after.metrics
    busy, memory = _ratio(metrics.get("average_gfx_activity")), _ratio(metrics.get("average_umc_activity"))
    power = number(metrics.get("current_socket_power"))
    return {
        "gpu_util_ratio": busy,
        "gr_engine_active_ratio": busy,
        "dram_active_ratio": memory,
        "nvlink_rx_bytes_per_s": _links(before, after, "xgmi_read_data_acc"),
        "nvlink_tx_bytes_per_s": _links(before, after, "xgmi_write_data_acc"),
        "memory_used_bytes": _scaled(after.memory_used_mib, _MIB),
        "power_w": number(metrics.get("average_socket_power")) if power is None else power,
        "energy_j": _scaled(after.energy_uj, 1e-6),
        "sm_clock_hz": _scaled(_first(metrics.get("current_gfxclks"), metrics.get("current_gfxclk")), 1e6),
        "sm_clock_max_hz": _scaled(after.clock_max_mhz, 1e6),
        "memory_clock_hz": _scaled(number(metrics.get("current_uclk")), 1e6),
        "temperature_c": number(metrics.get("temperature_hotspot")),
        "memory_temperature_c": number(metrics.get("temperature_mem")),
        "power_limit_w": _scaled(after.power_cap_uw, 1e-6),
        "pcie_replays": number(metrics.get("pcie_replay_count_acc")),
        "ecc_corrected": after.ecc_corrected,
        "ecc_uncorrected": after.ecc_uncorrected,
    }


def _ratio(percent: Any) -> float | None:  # noqa: ANN401 - a number, or a word for none
    value = number(percent)
    return None if value is None or not 0 <= value <= 105 else min(value / 100, 1.0)  # noqa: PLR2004 - as of NVML


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _first(values: Any, otherwise: Any) -> float | None:  # noqa: ANN401 - a list of clocks, or one
    """Return the mean of the clocks of a GPU's parts, else the one clock."""
    known = [clock for value in values if (clock := number(value)) is not None] if isinstance(values, list) else []
    return sum(known) / len(known) if known else number(otherwise)


def _links(before: Reading | None, after: Reading, name: str) -> float | None:
    """Return the traffic of all links together, from counters in KiB."""
    if before is None:
        return None
    rates = [
        rate(number(old), number(new), after.time_s - before.time_s)
        for old, new in zip(before.metrics.get(name) or (), after.metrics.get(name) or (), strict=False)
    ]
    known = [each for each in rates if each is not None]
    return sum(known) * _KIB if known else None
