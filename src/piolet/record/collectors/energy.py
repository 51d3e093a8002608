"""Energy of the node: Cray's pm_counters and RAPL, as the family `energy`.

Sources: HPE Cray EX pm_counters (``/sys/cray/pm_counters/*_energy`` in joules, ``*_power`` in watts) and the kernel's
Documentation/power/powercap. Since Linux 5.10 only root may read RAPL, because it leaks what others compute.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piolet.core.errors import PioletError
from piolet.record.collector import Context, Entry, NotApplicable
from piolet.tools import sysfs

_ZONE = re.compile(r"intel-rapl:(\d+)(?::\d+)?")


@dataclass(frozen=True, slots=True)
class Counter:
    """The energy of a domain in joules; it begins again after `range_j`, if it says so. Power where it is given."""

    source: str
    energy_j: float
    range_j: float | None = None
    power_w: float | None = None


class EnergyCollector:
    """Samples every domain that may be read."""

    family = "energy"

    def __init__(self, context: Context) -> None:
        self._sys = context.sys
        self._before_s, self._before = time.monotonic(), read(self._sys)
        if not any(sysfs.entries(self._sys / place) for place in ("cray/pm_counters", "class/powercap")):
            raise NotApplicable("the node has no energy counters", where=str(self._sys))
        if not self._before:
            raise PioletError(
                "no energy counter can be read",
                where=f"{self._sys}/cray/pm_counters, {self._sys}/class/powercap",
                remedy="ask the site to open pm_counters, or energy_uj of powercap, to users",
            )

    def collect(self, time_ns: int) -> list[Entry]:
        """Return a row for each domain."""
        now_s, after = time.monotonic(), read(self._sys)
        rows: list[Entry] = [
            (
                "energy",
                {"time_ns": time_ns, "domain": name} | derive(self._before.get(name), counter, now_s - self._before_s),
            )
            for name, counter in after.items()
        ]
        self._before_s, self._before = now_s, after
        return rows


def derive(before: Counter | None, after: Counter, elapsed_s: float) -> dict[str, Any]:
    """Return the columns of `energy`; power is that of the counter itself, else the energy over the time."""
    power_w = after.power_w if before is None or after.power_w is not None else _power(before, after, elapsed_s)
    return {"source": after.source, "energy_j": after.energy_j, "power_w": power_w}


def _power(before: Counter, after: Counter, elapsed_s: float) -> float | None:
    used_j = after.energy_j - before.energy_j
    if used_j < 0 and after.range_j:  # it wrapped around; without a range it was reset, and nobody knows what was used
        used_j += after.range_j
    return used_j / elapsed_s if used_j >= 0 and elapsed_s > 0 else None


def read(sys: Path) -> Mapping[str, Counter]:
    """Read the counters below `sys`: those of Cray if they are there, for they hold the same and more, else RAPL."""
    return _cray(sys / "cray/pm_counters") or _rapl(sys / "class/powercap")


def _cray(directory: Path) -> dict[str, Counter]:
    found = {}
    for path in sysfs.entries(directory):
        domain = re.fullmatch(r"(?:(\w+)_)?energy", path.name)
        joules = sysfs.number(path) if domain else None
        if domain and joules is not None:
            watts = sysfs.number(path.with_name(path.name.replace("energy", "power")))
            found[domain[1] or "node"] = Counter("pm_counters", joules, power_w=watts)
    return found


def _rapl(directory: Path) -> dict[str, Counter]:
    found = {}
    for path in sysfs.entries(directory):
        zone = _ZONE.fullmatch(path.name)
        microjoules = sysfs.number(path / "energy_uj") if zone else None
        if zone and microjoules is not None:
            name = sysfs.text(path / "name") or path.name
            range_uj = sysfs.number(path / "max_energy_range_uj")
            domain = name if name[-1:].isdigit() else f"{name}-{zone[1]}"
            found[domain] = Counter("rapl", microjoules / 1e6, range_uj / 1e6 if range_uj else None)
    return found
