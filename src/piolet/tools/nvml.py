"""NVML through nvidia-ml-py: which GPUs a node has, and what they do now, in NVML's own units.

A value that a GPU, driver or permission does not give is None; a GPU that fell off the bus is GpuLost. Blank
sentinels are removed here, so that nobody takes them for values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pynvml

from piolet.core.errors import PioletError, ToolMissing
from piolet.core.nouns import Gpu
from piolet.tools.kmsg import bus_id

_SIMULATED_SUFFIX = "-sim"
_BLANK_FROM = 0x7FFFFFF0
_BLANK_64_FROM = 0x7FFFFFFFFFFFFFF0
_ALL_LINKS = 0xFFFFFFFF
_GONE = {
    pynvml.NVML_ERROR_GPU_IS_LOST: "the GPU is lost: it has fallen off the bus",
    pynvml.NVML_ERROR_RESET_REQUIRED: "the GPU must be reset before it answers again",
}
_WITHOUT = {
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,  # how a GPU says that it has no such link
}
_ABSENT = {pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED}

GPM_METRICS = (1, 2, 3, 4, 5, 10, 11, 12, 13, 20, 21, 60, 61, 100, 101)
"""The GPM metrics that are read: NVML_GPM_METRIC_* numbers; up to 13 in percent, from 20 on in MiB/s."""

_NVLINK_ERRORS = (
    pynvml.NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
    pynvml.NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
    pynvml.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
    pynvml.NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
)

THROTTLES = {
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "sw_thermal",
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "hw_slowdown",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "hw_thermal",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "hw_power_brake",
}
"""The clocks-event reasons that slow a GPU down although its program wants to run; idle and power caps are not."""


class GpuLost(PioletError):  # noqa: N818 - reads as the fact it states
    """A GPU that was there does not answer any more."""


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU as NVML lists it. `uuid` is empty if the GPU does not answer; `minor` is N of /dev/nvidiaN.

    `mig` are the UUIDs of its MIG instances, empty where it is not divided.
    """

    handle: Any
    index: int
    uuid: str
    model: str
    memory_bytes: int | None
    bus_id: str
    minor: int | None
    simulated: bool
    mig: tuple[str, ...] = ()

    @property
    def gpu(self) -> Gpu:
        """The noun that the rest of Piolet knows."""
        return Gpu(self.index, self.uuid, self.model, self.memory_bytes, self.simulated)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a GPU says at one moment, in NVML's units; None is not known. Energy, links and ECC are counters."""

    time_s: float
    utilization_percent: int | None = None
    memory_used_bytes: int | None = None
    power_mw: int | None = None
    energy_mj: int | None = None
    sm_clock_mhz: int | None = None
    sm_clock_max_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    memory_temperature_c: int | None = None
    power_limit_mw: int | None = None
    pcie_replays: int | None = None
    nvlink_errors: int | None = None
    throttle_reasons: int | None = None
    ecc_corrected: int | None = None
    ecc_uncorrected: int | None = None
    nvlink_tx_kib: int | None = None
    nvlink_rx_kib: int | None = None
    pcie_tx_bytes: int | None = None
    pcie_rx_bytes: int | None = None
    gpm: dict[int, float] | None = None


def is_simulated(driver_version: str) -> bool:
    """Tell whether a driver version is that of the GPU simulator, which ends in "-sim"."""
    return driver_version.endswith(_SIMULATED_SUFFIX)


def known(value: float | None) -> float | None:
    """Return `value`, or None for NVML's and DCGM's blank sentinels, NaN and infinities.

    Blanks are the last 16 integers below 2**31 and below 2**63, in any numeric type that carried them.
    """
    if value is None or not math.isfinite(value) or value < 0:
        return None
    blank = _BLANK_FROM <= value <= 0x7FFFFFFF or value >= _BLANK_64_FROM  # noqa: PLR2004 - largest 32-bit integer
    return None if blank else value


@contextmanager
def session() -> Iterator[str]:
    """Open NVML and give the driver's version.

    Raises:
        ToolMissing: there is no library or no driver, hence no GPU to speak of.
        PioletError: the driver is there but refuses, such as a library of another version.
    """
    version = start()
    try:
        yield version
    finally:
        pynvml.nvmlShutdown()


def start() -> str:
    """Open NVML for the rest of the process and return the driver's version; errors as of `session`."""
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        if error.value in _ABSENT:
            raise ToolMissing("libnvidia-ml.so.1", remedy="without an NVIDIA driver there is no GPU to read") from error
        raise PioletError(
            f"the NVIDIA driver refuses: {error}", where="nvmlInit", remedy="compare with `nvidia-smi` on this node"
        ) from error


def devices(driver_version: str) -> tuple[Device, ...]:
    """Return every GPU that NVML lists, in its order; one that does not answer has an empty UUID."""
    count = optional(pynvml.nvmlDeviceGetCount) or 0
    return tuple(_device(index, simulated=is_simulated(driver_version)) for index in range(count))


def _device(index: int, *, simulated: bool) -> Device:
    handle = _identity(pynvml.nvmlDeviceGetHandleByIndex, index)
    memory = _identity(pynvml.nvmlDeviceGetMemoryInfo, handle)
    pci = _identity(pynvml.nvmlDeviceGetPciInfo, handle)
    return Device(
        handle=handle,
        index=index,
        uuid=_identity(pynvml.nvmlDeviceGetUUID, handle) or "",
        model=_identity(pynvml.nvmlDeviceGetName, handle) or "",
        memory_bytes=memory.total if memory else None,
        bus_id=bus_id(pci.busId) if pci else "",
        minor=_identity(pynvml.nvmlDeviceGetMinorNumber, handle),
        simulated=simulated,
        mig=_mig_uuids(handle),
    )


def _mig_uuids(handle: Any) -> tuple[str, ...]:  # noqa: ANN401 - opaque
    mode = _identity(pynvml.nvmlDeviceGetMigMode, handle)
    if not mode or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return ()
    most = _identity(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
    instances = (_identity(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place) for place in range(most))
    return tuple(uuid for each in instances if each and (uuid := _identity(pynvml.nvmlDeviceGetUUID, each)))


def read(handle: Any, time_s: float, *, gpm: dict[int, float] | None, links: bool) -> Reading:  # noqa: ANN401 - opaque
    """Read one GPU at `time_s` (any clock that does not jump); `gpm` is passed on.

    `links` asks for the counters of NVLink and PCIe as well, for GPUs without GPM.

    Raises:
        GpuLost: the GPU does not answer any more.
    """
    utilization = optional(pynvml.nvmlDeviceGetUtilizationRates, handle)
    tx_kib, rx_kib, tx_bytes, rx_bytes = _link_counters(handle) if links else (None,) * 4
    memory_temperature_c, *errors = _fields(
        handle, [(number, 0) for number in (pynvml.NVML_FI_DEV_MEMORY_TEMP, *_NVLINK_ERRORS)]
    )
    return Reading(
        time_s=time_s,
        utilization_percent=_integer(utilization.gpu) if utilization else None,
        memory_used_bytes=memory_used(handle),
        power_mw=_integer(optional(pynvml.nvmlDeviceGetPowerUsage, handle)),
        energy_mj=_integer(optional(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)),
        sm_clock_mhz=_integer(optional(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM)),
        sm_clock_max_mhz=_integer(optional(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM)),
        memory_clock_mhz=_integer(optional(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM)),
        memory_temperature_c=memory_temperature_c or None,
        power_limit_mw=_integer(optional(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
        pcie_replays=_integer(optional(pynvml.nvmlDeviceGetPcieReplayCounter, handle)),
        nvlink_errors=sum(known_errors) if (known_errors := [each for each in errors if each is not None]) else None,
        temperature_c=_integer(optional(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)),
        throttle_reasons=_integer(optional(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)),
        ecc_corrected=ecc_errors(handle, uncorrected=False),
        ecc_uncorrected=ecc_errors(handle, uncorrected=True),
        nvlink_tx_kib=tx_kib,
        nvlink_rx_kib=rx_kib,
        pcie_tx_bytes=tx_bytes,
        pcie_rx_bytes=rx_bytes,
        gpm=gpm,
    )


def memory_used(handle: Any) -> int | None:  # noqa: ANN401 - opaque
    """Return the device memory in use in bytes, without what the driver reserves where NVML tells them apart."""
    memory = optional(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2)
    memory = memory or optional(pynvml.nvmlDeviceGetMemoryInfo, handle)
    return _integer(memory.used) if memory else None


def ecc_errors(handle: Any, *, uncorrected: bool) -> int | None:  # noqa: ANN401 - opaque
    """Return the ECC errors of one kind since the driver was loaded."""
    kind = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED if uncorrected else pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED
    return _integer(optional(pynvml.nvmlDeviceGetTotalEccErrors, handle, kind, pynvml.NVML_VOLATILE_ECC))


def _link_counters(handle: Any) -> tuple[int | None, ...]:  # noqa: ANN401 - opaque
    """Return the counters NVLink sent and received (KiB, all links), PCIe sent and received (bytes)."""
    fields = (
        (pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, _ALL_LINKS),
        (pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, _ALL_LINKS),
        (pynvml.NVML_FI_DEV_PCIE_COUNT_TX_BYTES, 0),
        (pynvml.NVML_FI_DEV_PCIE_COUNT_RX_BYTES, 0),
    )
    return _fields(handle, fields)


def _fields(handle: Any, fields: Sequence[tuple[int, int]]) -> tuple[int | None, ...]:  # noqa: ANN401 - opaque
    """Return the values of fields, each with its scope, by one call."""
    values = optional(pynvml.nvmlDeviceGetFieldValues, handle, fields)
    if values is None:
        return (None,) * len(fields)
    return tuple(_integer(_field(value)) if value.nvmlReturn == pynvml.NVML_SUCCESS else None for value in values)


def _field(value: Any) -> int:  # noqa: ANN401 - a structure of NVML
    """Return a field's value as the type that it says; a short one leaves the rest of the union undefined."""
    short = value.valueType in {pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, pynvml.NVML_VALUE_TYPE_SIGNED_INT}
    return int(value.value.uiVal if short else value.value.ullVal)


class Gpm:
    """The GPM metrics of one GPU (Hopper and newer); each reading is over the time since the one before."""

    def __init__(self, handle: Any) -> None:  # noqa: ANN401 - opaque
        self._handle = handle
        self._older = pynvml.nvmlGpmSampleAlloc()
        self._newer = pynvml.nvmlGpmSampleAlloc()
        self._samples = 0

    @staticmethod
    def supported(handle: Any) -> bool:  # noqa: ANN401 - opaque
        """Tell whether this GPU and driver have GPM."""
        support = optional(pynvml.nvmlGpmQueryDeviceSupport, handle)
        return bool(support and support.isSupportedDevice)

    def read(self) -> dict[int, float] | None:
        """Take a sample and return the metrics since the last one, keyed by GPM number; None the first time.

        Raises:
            GpuLost: the GPU does not answer any more.
        """
        if optional(pynvml.nvmlGpmSampleGet, self._handle, self._older) is None:
            self._samples = 0
            return None
        self._older, self._newer = self._newer, self._older
        self._samples += 1
        return self._metrics() if self._samples > 1 else None

    def _metrics(self) -> dict[int, float] | None:
        request = pynvml.c_nvmlGpmMetricsGet_t()
        request.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        request.numMetrics = len(GPM_METRICS)
        request.sample1, request.sample2 = self._older, self._newer
        for place, number in enumerate(GPM_METRICS):
            request.metrics[place].metricId = number
        if optional(pynvml.nvmlGpmMetricsGet, request) is None:
            return None
        answered = (request.metrics[place] for place in range(len(GPM_METRICS)))
        return {each.metricId: each.value for each in answered if each.nvmlReturn == pynvml.NVML_SUCCESS}


def optional(call: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - any call of NVML
    """Call NVML; what is not supported, not permitted or not known is None.

    Raises:
        GpuLost: the GPU does not answer any more.
    """
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        _raise_if_lost(call, error)
        return None


def supported(call: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - any call of NVML
    """Call NVML; None says that this GPU or driver does not have it, and nothing else does.

    Raises:
        GpuLost: the GPU does not answer any more.
        PioletError: it has it, but does not tell.
    """
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        _raise_if_lost(call, error)
        if error.value in _WITHOUT:
            return None
        remedy = "compare with `nvidia-smi -q` on this node"
        raise PioletError(f"the NVIDIA driver refuses: {error}", where=call.__name__, remedy=remedy) from error


def _raise_if_lost(call: Callable[..., Any], error: pynvml.NVMLError) -> None:
    if error.value in _GONE:
        raise GpuLost(_GONE[error.value], where=call.__name__, remedy="tell the operators; drain the node") from error


def _identity(call: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - any call of NVML
    try:
        return None if arguments == (None,) else call(*arguments)
    except pynvml.NVMLError:
        return None


def _integer(value: Any) -> int | None:  # noqa: ANN401 - any number of NVML
    number = known(value)
    return None if number is None else int(number)


def described(device: Device) -> dict[str, Any]:
    """Return what seldom changes of a GPU, by name; None is not known. One that does not answer has only its UUID.

    Power in watts, clocks in MHz, as NVML's own tools print them.
    """
    facts: dict[str, Any] = {"uuid": device.uuid, "model": device.model, "memory_bytes": device.memory_bytes}
    facts |= {"bus_id": device.bus_id, "minor": device.minor, "mig_instances": len(device.mig)}
    ask = {
        "serial": (pynvml.nvmlDeviceGetSerial,),
        "vbios": (pynvml.nvmlDeviceGetVbiosVersion,),
        "power_limit_mw": (pynvml.nvmlDeviceGetEnforcedPowerLimit,),
        "sm_clock_max_mhz": (pynvml.nvmlDeviceGetMaxClockInfo, pynvml.NVML_CLOCK_SM),
        "pcie_generation": (pynvml.nvmlDeviceGetCurrPcieLinkGeneration,),
        "pcie_width": (pynvml.nvmlDeviceGetCurrPcieLinkWidth,),
        "persistence": (pynvml.nvmlDeviceGetPersistenceMode,),
        "compute_mode": (pynvml.nvmlDeviceGetComputeMode,),
    }
    if device.handle is None:
        return facts
    return facts | {name: _identity(call, device.handle, *more) for name, (call, *more) in ask.items()}
