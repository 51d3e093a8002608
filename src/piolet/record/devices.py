"""Which of a node's GPUs belong to the job: indices or UUIDs in the environment, the UUID being the identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from piolet.core.errors import ToolMissing
from piolet.core.nouns import Gpu

if TYPE_CHECKING:
    from piolet.tools.nvml import Device

_SLURM = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
_CUDA = "CUDA_VISIBLE_DEVICES"
_NONE = {"NoDevFiles", "-1", ""}


def select(devices: Sequence[Device], environ: Mapping[str, str]) -> tuple[Device, ...]:
    """Return the devices that Slurm gave to the job, else those that CUDA may see, else all.

    Slurm counts device files (N of /dev/nvidiaN). Where it confines the job to its own devices, NVML lists nothing
    else and counts from 0 again: as many devices as were given, or a number that no device has, means all of them.
    CUDA_VISIBLE_DEVICES holds UUIDs (or unique beginnings of them, or those of MIG instances), or indices.
    """
    for variable in _SLURM:
        if environ.get(variable):
            return _by_number(devices, environ[variable].split(","))
    if _CUDA in environ:
        return _by_cuda(devices, environ[_CUDA].split(","))
    return tuple(devices)


def _by_number(devices: Sequence[Device], words: Sequence[str]) -> tuple[Device, ...]:
    numbers = {int(word) for word in words if word.isdigit()}
    found = tuple(device for device in devices if _number(device) in numbers)
    return found if len(found) == len(numbers) else tuple(devices)


def _number(device: Device) -> int:
    return device.index if device.minor is None else device.minor


def _by_cuda(devices: Sequence[Device], words: Sequence[str]) -> tuple[Device, ...]:
    """Select as CUDA does: it stops at the first word that names no device. A MIG instance stands for its GPU.

    An instance that NVML does not list to this user stands for all GPUs.
    """
    found: list[Device] = []
    for word in (word.strip() for word in words):
        if word.startswith("MIG-") and not any(_has_uuid(each, word) for each in devices):
            return tuple(devices)
        match = [each for each in devices if word not in _NONE and (str(each.index) == word or _has_uuid(each, word))]
        if len(match) != 1:
            break
        found += match
    return tuple(dict.fromkeys(found))


def _has_uuid(device: Device, word: str) -> bool:
    if word.startswith("MIG-"):
        return any(uuid.startswith(word) for uuid in device.mig)
    return word.startswith("GPU-") and device.uuid.startswith(word)


def inventory(environ: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Return the GPUs of this node that belong to the job of `environ`; none where there is no NVIDIA driver.

    Raises:
        PioletError: the driver is there but refuses.
    """
    from piolet.tools import nvml  # noqa: PLC0415 - loads NVML's bindings, which selecting does not need

    try:
        with nvml.session() as version:
            return tuple(device.gpu for device in select(nvml.devices(version), environ))
    except ToolMissing:
        return ()
