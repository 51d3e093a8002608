"""What the node is made of, once a minute, as the family `inventory`: driver, firmware, limits, clocks, links, kernel.

It says afterwards under which driver a number was taken, and when something changed while the job ran.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from piolet.core.errors import PioletError
from piolet.record.collector import Context, Entry
from piolet.record.devices import select
from piolet.tools import nvml, sysfs

Facts = Mapping[str, object]
"""Name -> value; None is not known, and is not written."""


class InventoryCollector:
    """Reads the inventory."""

    family = "inventory"
    least_interval_s = 60.0

    def __init__(self, context: Context) -> None:
        self._context = context
        try:
            self._driver: str | None = nvml.start()
        except PioletError:  # the collector of the GPUs says why
            self._driver = None

    def collect(self, time_ns: int) -> list[Entry]:
        """Return a row for each fact."""
        return [
            ("inventory", {"time_ns": time_ns, "device": device, "name": name, "value": str(value)})
            for device, facts in self._devices()
            for name, value in facts.items()
            if value is not None
        ]

    def _devices(self) -> Iterator[tuple[str, Facts]]:
        yield "node", self._node()
        if self._driver is not None:
            for device in select(nvml.devices(self._driver), self._context.environ):
                yield f"gpu{device.index}", nvml.described(device)
        for path in sysfs.entries(self._context.sys / "class/net"):
            if (path / "device").exists():
                yield path.name, interface(path)

    def _node(self) -> Facts:
        kernel, processors = os.uname(), sysfs.text(self._context.proc / "cpuinfo") or ""
        return {
            "kernel": kernel.release,
            "architecture": kernel.machine,
            "cpus": os.cpu_count(),
            "cpu_model": cpu_model(processors),
            "nvidia_driver": self._driver,
            "boot_id": sysfs.text(self._context.proc / "sys/kernel/random/boot_id"),
        }


def cpu_model(text: str) -> str | None:
    """Return the model from /proc/cpuinfo, which names it differently on each architecture."""
    found = re.search(r"^(?:model name|cpu model|CPU part)\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else None


def interface(path: Path) -> Facts:
    """Return what /sys/class/net says of an interface."""
    driver = path / "device/driver"
    return {
        "mtu": sysfs.number(path / "mtu"),
        "speed_megabits": sysfs.number(path / "speed"),
        "driver": driver.resolve().name if driver.exists() else None,
    }
