"""Xid errors as NVML's events, where the kernel log may not be read: users rarely may, and NVML asks for no rights."""

from __future__ import annotations

from piolet.core.errors import StorageError, ToolMissing
from piolet.core.nouns import Severity
from piolet.record.collector import Context, Entry, NotApplicable, event
from piolet.record.devices import select
from piolet.tools import nvml
from piolet.tools.nvml_events import XidEvent, XidEvents


class XidCollector:
    """Follows the events of the GPUs that the job was given."""

    def __init__(self, context: Context) -> None:
        if not isinstance(context.kernel_log, StorageError):
            raise NotApplicable("the kernel log tells the same, and more", where="NVML's events")
        try:
            devices = nvml.devices(nvml.start())
        except ToolMissing as error:
            raise NotApplicable("the node has no NVIDIA driver", where="this node") from error
        self._devices = {device.uuid: device for device in select(devices, context.environ)}
        if not self._devices:
            raise NotApplicable("the job was given no GPU", where="this node")
        self._events = XidEvents(tuple(self._devices.values()))

    def collect(self, time_ns: int) -> list[Entry]:
        """Return an event for each Xid since the last call."""
        return [self._entry(time_ns, each) for each in self._events.read()]

    def _entry(self, time_ns: int, xid: XidEvent) -> Entry:
        device = self._devices.get(xid.uuid)
        message = f"Xid {xid.code} on PCI {device.bus_id}" if device else f"Xid {xid.code}"
        index = device.index if device else None
        code, uuid = str(xid.code), xid.uuid or None
        return event(time_ns, "xid", code, message, severity=Severity.ERROR, gpu=index, uuid=uuid)
