"""The kernel log: Xid messages of the GPU driver become events, matched to the GPU by its bus id."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from piolet.core.errors import StorageError
from piolet.core.nouns import Severity
from piolet.record.collector import Context, Entry, event
from piolet.record.devices import select
from piolet.tools import kmsg
from piolet.tools.kmsg import KernelMessage, Xid
from piolet.tools.nvml import Device

_OLDEST_S = 60.0


class KernelLogCollector:
    """Follows the kernel log from the place where the recording began."""

    def __init__(self, context: Context) -> None:
        if isinstance(context.kernel_log, StorageError):
            raise context.kernel_log
        self._log = context.kernel_log
        self._context = context

    def collect(self, time_ns: int) -> list[Entry]:
        """Return an event for each Xid that was logged since the last call."""
        messages = self._log.read_new()
        if not messages:
            return []
        allocated = select(self._context.devices, self._context.environ)
        return list(derive(messages, self._context.devices, allocated, time_ns, time.monotonic()))


def derive(
    messages: Sequence[KernelMessage],
    devices: Sequence[Device],
    allocated: Sequence[Device],
    now_ns: int,
    now_since_boot_s: float,
) -> Iterator[Entry]:
    """Turn Xid messages into events; those of GPUs that belong to other jobs are left out.

    A GPU that nobody knows, since the driver has not answered yet, is named in the message by its bus id.
    """
    owners = {device.bus_id: device for device in devices}
    ours = {device.bus_id for device in allocated}
    for message in messages:
        xid = kmsg.parse_xid(message.text)
        if xid and (xid.bus_id in ours or xid.bus_id not in owners):
            yield _event(xid, owners.get(xid.bus_id), _logged_ns(message, now_ns, now_since_boot_s))


def _event(xid: Xid, device: Device | None, time_ns: int) -> Entry:
    return event(
        time_ns,
        "xid",
        str(xid.code),
        f"Xid {xid.code} on PCI {xid.bus_id}: {xid.detail}",
        severity=Severity.ERROR,
        gpu=device.index if device else None,
        uuid=device.uuid if device else None,
    )


def _logged_ns(message: KernelMessage, now_ns: int, now_since_boot_s: float) -> int:
    """Return when the kernel logged a message; `now_ns` if its clock (which a suspend stops) says nothing usable."""
    age_s = now_since_boot_s - message.time_us / 1e6
    return now_ns - round(age_s * 1e9) if 0 <= age_s <= _OLDEST_S else now_ns
