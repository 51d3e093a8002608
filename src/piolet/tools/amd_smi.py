"""AMD GPUs through ROCm's Python package `amdsmi`: which a node has, and what they do now, in that library's units.

Its word for an unknown number is "N/A". Source: the Python API of AMD SMI 7.0, whose units these are.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from piolet.core.errors import PioletError, ToolMissing
from piolet.tools.nvml import Device

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Reading:
    """What a GPU says at one moment, in AMD SMI's units: its metrics by name, memory in MiB, energy in microjoules."""

    time_s: float
    metrics: Mapping[str, Any] = field(default_factory=dict)
    memory_used_mib: float | None = None
    energy_uj: float | None = None
    power_cap_uw: float | None = None
    clock_max_mhz: float | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None


class AmdSmi:
    """The library, open for the rest of the process."""

    def __init__(self) -> None:
        """Open it.

        Raises:
            ToolMissing: there is no such package, or no driver under it.
            PioletError: the driver is there and refuses.
        """
        try:
            self._library = importlib.import_module("amdsmi")
        except Exception as error:  # without its shared library the package raises whatever comes
            raise ToolMissing(
                "amdsmi", remedy="ROCm brings it; without an AMD driver there is no GPU to read"
            ) from error
        try:
            self._library.amdsmi_init()
        except self._library.AmdSmiException as error:
            raise PioletError(
                f"AMD SMI refuses: {error}", where="amdsmi_init", remedy="compare with `amd-smi list`"
            ) from error

    def devices(self) -> tuple[Device, ...]:
        """Return every GPU in the library's order; one that does not answer has an empty UUID."""
        handles = self._ask(self._library.amdsmi_get_processor_handles) or []
        return tuple(self._device(index, handle) for index, handle in enumerate(handles))

    def _device(self, index: int, handle: Any) -> Device:  # noqa: ANN401 - opaque
        memory = self._ask(self._library.amdsmi_get_gpu_vram_usage, handle) or {}
        total = number(memory.get("vram_total"))
        return Device(
            handle=handle,
            index=index,
            uuid=self._ask(self._library.amdsmi_get_gpu_device_uuid, handle) or "",
            model=(self._ask(self._library.amdsmi_get_gpu_asic_info, handle) or {}).get("market_name", ""),
            memory_bytes=None if total is None else round(total * _MIB),
            bus_id=self._ask(self._library.amdsmi_get_gpu_device_bdf, handle) or "",
            minor=None,
            simulated=False,
        )

    def read(self, handle: Any, time_s: float) -> Reading:  # noqa: ANN401 - opaque
        """Read one GPU at `time_s` (any clock that does not jump); what it does not tell is None."""
        smi = self._library
        energy = self._ask(smi.amdsmi_get_energy_count, handle) or {}
        ticks, step = number(energy.get("energy_accumulator")), number(energy.get("counter_resolution"))
        errors = self._ask(smi.amdsmi_get_gpu_total_ecc_count, handle) or {}
        clock = self._ask(smi.amdsmi_get_clock_info, handle, smi.AmdSmiClkType.GFX) or {}
        return Reading(
            time_s=time_s,
            metrics=self._ask(smi.amdsmi_get_gpu_metrics_info, handle) or {},
            memory_used_mib=number((self._ask(smi.amdsmi_get_gpu_vram_usage, handle) or {}).get("vram_used")),
            energy_uj=None if ticks is None or step is None else ticks * step,
            power_cap_uw=number((self._ask(smi.amdsmi_get_power_cap_info, handle) or {}).get("power_cap")),
            clock_max_mhz=number(clock.get("max_clk")),
            ecc_corrected=errors.get("correctable_count"),
            ecc_uncorrected=errors.get("uncorrectable_count"),
        )

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - any call of the library
        try:
            return call(*arguments)
        except self._library.AmdSmiException:
            return None


def number(value: Any) -> float | None:  # noqa: ANN401 - a number, or a word for none
    """Return a number; None for "N/A" and for lists."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
