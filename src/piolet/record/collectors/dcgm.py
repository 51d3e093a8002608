"""DCGM's counters for GPUs without GPM: they fill the rows that NVML makes, or are the rows where there is no NVML."""

from __future__ import annotations

from piolet.core.errors import PioletError, ToolMissing
from piolet.record import dcgm
from piolet.record.collector import Context, Entry, NotApplicable
from piolet.record.devices import select
from piolet.tools import nvml


class DcgmCollector:
    """Reads DCGM in a thread of its own, so that one that hangs does not hold up what NVML says."""

    family = "gpu"

    def __init__(self, context: Context) -> None:
        if context.dcgm == dcgm.OFF:
            raise NotApplicable("DCGM is switched off", where="record.dcgm")
        self._context = context
        self._beside_nvml = _needed_beside_nvml(context)
        try:
            self._source = dcgm.source(context.dcgm, context.interval_s)
        except ToolMissing as error:
            raise NotApplicable("the node has no DCGM", where="this node") from error

    def collect(self, time_ns: int) -> list[Entry]:
        """Leave what DCGM says for the rows of NVML, or return it as rows."""
        found = self._source.read()
        if self._beside_nvml:
            self._context.profile.update(found)
            return []
        return [
            ("gpu", {"time_ns": time_ns, "gpu": place, "uuid": uuid, "source": self._source.name, **columns})
            for place, (uuid, columns) in enumerate(sorted(found.items()))
        ]


def _needed_beside_nvml(context: Context) -> bool:
    """Return whether NVML reads the GPUs; a GPU with GPM needs nothing of DCGM."""
    try:
        devices = select(nvml.devices(nvml.start()), context.environ)
    except PioletError:
        return False
    if not any(device.handle is not None and not nvml.Gpm.supported(device.handle) for device in devices):
        raise NotApplicable("NVML tells the same of these GPUs", where="this node")
    return True
