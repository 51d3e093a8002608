"""The host: CPU, memory, pressure, network and disks from /proc, as the family `host`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from piolet.core.errors import ParseError, PioletError
from piolet.record.collector import Context, Entry, rate
from piolet.tools import proc
from piolet.tools.proc import CpuTimes, Memory, Traffic

T = TypeVar("T")

_US_PER_S = 1e6


@dataclass(frozen=True, slots=True)
class HostReading:
    """What /proc said at one moment of the monotonic clock; None is a file that this kernel does not have."""

    time_s: float
    cpu: CpuTimes | None = None
    memory: Memory | None = None
    cpu_pressure_us: int | None = None
    memory_pressure_us: int | None = None
    io_pressure_us: int | None = None
    net: Mapping[str, Traffic] | None = None
    disks: Mapping[str, Traffic] | None = None


class HostCollector:
    """Samples the host."""

    family = "host"

    def __init__(self, context: Context) -> None:
        self._proc = context.proc
        self._before = read(self._proc)
        if self._before.cpu is None and self._before.memory is None:
            raise PioletError(
                "there is nothing to read", where=str(self._proc), remedy="mount /proc where the recorder runs"
            )

    def collect(self, time_ns: int) -> list[Entry]:
        """Return one row; rates are over the time since the last one."""
        after = read(self._proc)
        row = derive(self._before, after)
        self._before = after
        return [("host", {"time_ns": time_ns} | row)]


def read(directory: Path) -> HostReading:
    """Read the files below `directory`, which is /proc."""
    return HostReading(
        time_s=time.monotonic(),
        cpu=_parsed(directory / "stat", proc.parse_stat),
        memory=_parsed(directory / "meminfo", proc.parse_meminfo),
        cpu_pressure_us=_parsed(directory / "pressure/cpu", proc.parse_pressure),
        memory_pressure_us=_parsed(directory / "pressure/memory", proc.parse_pressure),
        io_pressure_us=_parsed(directory / "pressure/io", proc.parse_pressure),
        net=_parsed(directory / "net/dev", proc.parse_net_dev),
        disks=_parsed(directory / "diskstats", proc.parse_diskstats),
    )


def _parsed(path: Path, parse: Callable[[str], T]) -> T | None:
    try:
        return parse(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ParseError):
        return None


def derive(before: HostReading, after: HostReading) -> dict[str, Any]:
    """Return the columns of `host` from two readings: ratios 0..1, bytes, bytes per second."""
    elapsed_s = after.time_s - before.time_s
    busy, iowait = _cpu_shares(before.cpu, after.cpu)
    net_rx, net_tx = _traffic_rates(before.net, after.net, elapsed_s)
    disk_read, disk_write = _traffic_rates(before.disks, after.disks, elapsed_s)
    return {
        "cpu_busy_ratio": busy,
        "cpu_iowait_ratio": iowait,
        "cpu_pressure_ratio": _stalled(before.cpu_pressure_us, after.cpu_pressure_us, elapsed_s),
        "memory_pressure_ratio": _stalled(before.memory_pressure_us, after.memory_pressure_us, elapsed_s),
        "io_pressure_ratio": _stalled(before.io_pressure_us, after.io_pressure_us, elapsed_s),
        "memory_used_bytes": after.memory.used_bytes if after.memory else None,
        "memory_total_bytes": after.memory.total_bytes if after.memory else None,
        "net_rx_bytes_per_s": net_rx,
        "net_tx_bytes_per_s": net_tx,
        "disk_read_bytes_per_s": disk_read,
        "disk_write_bytes_per_s": disk_write,
    }


def _cpu_shares(before: CpuTimes | None, after: CpuTimes | None) -> tuple[float | None, float | None]:
    """Return the shares of CPU time busy and waiting for I/O. Per-CPU iowait may fall; that counts as none."""
    if before is None or after is None:
        return None, None
    busy, idle, iowait = (
        max(0, new - old)
        for old, new in ((before.busy, after.busy), (before.idle, after.idle), (before.iowait, after.iowait))
    )
    total = busy + idle + iowait
    return (busy / total, iowait / total) if total else (None, None)


def _stalled(before_us: int | None, after_us: int | None, elapsed_s: float) -> float | None:
    stalled = rate(before_us, after_us, elapsed_s)
    return None if stalled is None else min(1.0, stalled / _US_PER_S)


def _traffic_rates(
    before: Mapping[str, Traffic] | None, after: Mapping[str, Traffic] | None, elapsed_s: float
) -> tuple[float | None, float | None]:
    """Return bytes per second in and out, summed over the devices that both readings have and none reset."""
    if before is None or after is None or elapsed_s <= 0:
        return None, None
    pairs = [(before[name], after[name]) for name in after if name in before]
    incoming = sum(rate(old.in_bytes, new.in_bytes, elapsed_s) or 0.0 for old, new in pairs)
    outgoing = sum(rate(old.out_bytes, new.out_bytes, elapsed_s) or 0.0 for old, new in pairs)
    return incoming, outgoing
