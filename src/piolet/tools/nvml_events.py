"""NVML's own events: Xid errors of the GPUs of this process's driver, without a kernel log that may be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pynvml

from piolet.core.errors import PioletError
from piolet.tools.nvml import Device, optional


@dataclass(frozen=True, slots=True)
class XidEvent:
    """An Xid of a GPU, known by its UUID (empty if the driver does not say)."""

    code: int
    uuid: str


class XidEvents:
    """Waits for nothing: `read` gives the events since the last time."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self._uuids = [device.uuid for device in devices]
        try:
            self._set = pynvml.nvmlEventSetCreate()
            for device in devices:
                if device.handle is not None:
                    pynvml.nvmlDeviceRegisterEvents(device.handle, pynvml.nvmlEventTypeXidCriticalError, self._set)
        except pynvml.NVMLError as error:
            raise PioletError(f"the NVIDIA driver reports no Xid: {error}", where="nvmlDeviceRegisterEvents") from error

    def read(self) -> Iterator[XidEvent]:
        """Yield what happened since the last call."""
        while True:
            try:
                found = pynvml.nvmlEventSetWait_v2(self._set, 0)
            except pynvml.NVMLError as error:
                if error.value == pynvml.NVML_ERROR_TIMEOUT:
                    return
                raise PioletError(f"the NVIDIA driver reports no Xid: {error}", where="nvmlEventSetWait") from error
            uuid = optional(pynvml.nvmlDeviceGetUUID, found.device) if found.device else None
            yield XidEvent(int(found.eventData), uuid or "")
