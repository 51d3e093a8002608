"""The allocated GPUs of this node, and one value read from each. Runs on nodes, in the process of a check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pynvml

from piolet.core.errors import ToolMissing
from piolet.core.nouns import Gpu, Status
from piolet.tools import nvml
from piolet.tools.slurm.tres import parse_indexes
from piolet.vet.check import Context, Judgement

T = TypeVar("T")

_ALLOCATED = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
_NVIDIA_VENDOR = "0x10de"
_DISPLAY_CLASS = "0x03"
"""PCI base class of display controllers, which GPUs are; their audio and bridge functions are of others."""


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """One GPU: its value, or the reason why it gave none. `name` is how messages call it."""

    name: str
    bus_id: str
    value: T | None = None
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Gpus(Generic[T]):
    """The GPUs that belong to the step. `expected` is None if nothing says how many there should be.

    `others` are the bus ids of GPUs of the node that are visible but belong to other jobs. `absent` is the reason
    why there is no driver to ask.
    """

    expected: int | None
    readings: tuple[Reading[T], ...]
    others: tuple[str, ...] = ()
    absent: str = ""

    @property
    def lost(self) -> tuple[Reading[T], ...]:
        """Those that do not answer."""
        return tuple(reading for reading in self.readings if reading.lost)

    @property
    def answering(self) -> tuple[tuple[str, T], ...]:
        """Name and value of those that gave one."""
        return tuple((each.name, each.value) for each in self.readings if each.value is not None)


def observe(context: Context, read: Callable[[Any], T | None]) -> Gpus[T]:
    """Read one value from each allocated GPU; `read` gets the NVML handle and may raise GpuLost."""
    expected = expected_count(context.environ)
    try:
        devices = nvml.devices(nvml.start())
    except ToolMissing as error:
        return Gpus(expected, (), absent=error.what)
    ours = allocated(devices, context.environ)
    others = tuple(device.bus_id for device in devices if device not in ours)
    return Gpus(expected, tuple(_reading(device, read) for device in ours), others)


def _reading(device: nvml.Device, read: Callable[[Any], T | None]) -> Reading[T]:
    name = f"GPU {device.index}"
    try:
        if device.uuid:
            return Reading(name, device.bus_id, value=read(device.handle))
        nvml.optional(pynvml.nvmlDeviceGetHandleByIndex, device.index)
    except nvml.GpuLost as error:
        return Reading(name, device.bus_id, lost=error.what)
    return Reading(name, device.bus_id, lost="it does not answer")


def answers(handle: Any) -> bool:  # noqa: ANN401 - opaque
    """Ask a GPU for its temperature, which all of them have; GpuLost if it is gone."""
    nvml.optional(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)
    return True


def inventory(context: Context) -> tuple[Gpu, ...]:
    """Return the allocated GPUs; none where there is no driver."""
    try:
        devices = nvml.devices(nvml.start())
    except ToolMissing:
        return ()
    return tuple(device.gpu for device in allocated(devices, context.environ))


def allocated(devices: Sequence[nvml.Device], environ: Mapping[str, str]) -> tuple[nvml.Device, ...]:
    """Return the devices that belong to the step.

    Slurm names them by index. Where it also hides the others (ConstrainDevices), those that are visible are ours,
    whatever their index.
    """
    indexes = slurm_indexes(environ)
    if indexes is None or len(devices) <= len(indexes):
        return tuple(devices)
    return tuple(device for device in devices if device.index in indexes)


def slurm_indexes(environ: Mapping[str, str]) -> frozenset[int] | None:
    """Return the indexes that Slurm granted on this node; None outside of Slurm or without GPUs."""
    text = next((environ[name] for name in _ALLOCATED if environ.get(name)), "")
    return frozenset(parse_indexes(text)) if text else None


def expected_count(environ: Mapping[str, str]) -> int | None:
    """Return how many GPUs must be here: those that Slurm granted, else those on the PCI bus of this machine.

    None inside of a Slurm step that was granted none: then it is not known what the program will want.
    """
    indexes = slurm_indexes(environ)
    if indexes is not None:
        return len(indexes)
    if environ.get("SLURM_JOB_ID"):
        return None
    return on_the_bus(Path("/sys/bus/pci/devices"))


def on_the_bus(directory: Path) -> int:
    """Count NVIDIA display controllers in a PCI directory of sysfs: the kernel sees them without a driver."""
    if not directory.is_dir():
        return 0
    return sum(_word(each / "vendor") == _NVIDIA_VENDOR and _is_display(each) for each in directory.iterdir())


def _is_display(device: Path) -> bool:
    return _word(device / "class").startswith(_DISPLAY_CLASS)


def _word(path: Path) -> str:
    return path.read_text(encoding="ascii").strip() if path.exists() else ""


def nothing_to_judge(gpus: Gpus[T]) -> Judgement | None:
    """Return the judgement of a check of GPUs that has none to look at, or that lost one; None if it may go on."""
    if gpus.lost:
        silent = gpus.lost[0]
        return Judgement(
            Status.UNKNOWN, f"{silent.name}: {silent.lost}", remedy="the checks gpu_count and gpu_xid say more"
        )
    if gpus.readings:
        return None
    if gpus.expected == 0:
        return Judgement(Status.PASS, "no GPU here, and none expected")
    return Judgement(
        Status.UNKNOWN,
        f"no GPU to look at: {gpus.absent or 'the driver lists none'}",
        remedy="ask Slurm for GPUs (--gpus-per-node); if they were granted, the driver of this node is broken",
    )


def not_supported(gpus: Gpus[T], what: str, remedy: str) -> Judgement | None:
    """Return the judgement for GPUs that do not tell `what`, or None if all do."""
    silent = [reading.name for reading in gpus.readings if reading.value is None]
    return Judgement(Status.UNKNOWN, f"{', '.join(silent)}: {what} is not known", remedy=remedy) if silent else None
