"""What others left on the GPUs of a job: memory in use, and no process of ours that uses it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pynvml

from piolet.core.errors import ToolMissing
from piolet.tools import nvml

IDLE_SHARE = 0.05
"""An idle driver holds under 2 % of a GPU's memory."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """A GPU of ours on which memory is in use that is not ours."""

    name: str
    used_bytes: int
    total_bytes: int


def leftovers(pids: Collection[int], indexes: Collection[int] | None) -> tuple[Leftover, ...]:
    """Return the GPUs that hold memory of none of `pids`, of those with `indexes` (None: all); none without a driver.

    Raises:
        PioletError: the driver refuses, or a GPU is lost.
    """
    try:
        with nvml.session() as version:
            every = nvml.devices(version)
            ours = [each for each in every if indexes is None or each.index in indexes]
            return tuple(found for each in ours for found in _leftover(each, pids))
    except ToolMissing:
        return ()


def _leftover(device: nvml.Device, pids: Collection[int]) -> Iterator[Leftover]:
    used, total = nvml.memory_used(device.handle), device.memory_bytes
    running = nvml.optional(pynvml.nvmlDeviceGetComputeRunningProcesses, device.handle) or []
    if used and total and used > IDLE_SHARE * total and not any(process.pid in pids for process in running):
        yield Leftover(f"GPU {device.index}", used, total)
