"""What the job's own cgroup used on the node, versions 1 and 2, as the family `cgroup`.

Slurm's cgroups end in ``job_N/step_.../task_...``: the job's is what stands up to ``job_N``. Sources: the kernel's
admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piolet.core.errors import ParseError
from piolet.record.collector import Context, Entry, NotApplicable, rate
from piolet.tools import cgroup, proc, sysfs
from piolet.tools.cgroup import Memory

_JOB = re.compile(r"(.*/job_\d+)(?:/.*)?$")


@dataclass(frozen=True, slots=True)
class Usage:
    """Counters of the job at one moment; None is what this version or site does not account."""

    version: int
    memory: Memory
    cpu_us: float | None = None
    throttled_us: float | None = None
    cpu_limit_cores: float | None = None
    cpu_pressure_us: int | None = None
    memory_pressure_us: int | None = None
    io_pressure_us: int | None = None
    read_bytes: int | None = None
    write_bytes: int | None = None


class CgroupCollector:
    """Samples the cgroup of the job in which the recorder runs."""

    family = "cgroup"

    def __init__(self, context: Context) -> None:
        self._root = context.sys / cgroup.ROOT
        self._paths = job_paths(sysfs.text(context.proc / context.pid / "cgroup") or "")
        if not self._paths:
            raise NotApplicable(
                "the recorder is in no cgroup of a Slurm job",
                where=str(context.proc / "self/cgroup"),
                remedy="nothing to do outside Slurm; else set ProctrackType=proctrack/cgroup",
            )
        self._before_s, self._before = time.monotonic(), read(self._root, self._paths)

    def collect(self, time_ns: int) -> list[Entry]:
        """Return one row; rates are over the time since the last one."""
        now_s, after = time.monotonic(), read(self._root, self._paths)
        row = derive(self._before, after, now_s - self._before_s)
        self._before_s, self._before = now_s, after
        return [("cgroup", {"time_ns": time_ns} | row)]


def job_paths(text: str) -> dict[str, str]:
    """Return the job's cgroup by controller from /proc/PID/cgroup; version 2 is the controller ``""``."""
    found = {name: _JOB.match(path) for name, path in cgroup.parse(text).items()}
    return {name: match[1] for name, match in found.items() if match}


def read(root: Path, paths: Mapping[str, str]) -> Usage:
    """Read the job's cgroup below `root`, which is /sys/fs/cgroup."""
    return _version_1(root, paths) if "memory" in paths or "cpuacct" in paths else _version_2(root / paths.get("", ""))


def derive(before: Usage, after: Usage, elapsed_s: float) -> dict[str, Any]:
    """Return the columns of `cgroup` from two readings."""

    def share(name: str) -> float | None:
        stalled = rate(getattr(before, name), getattr(after, name), elapsed_s)
        return None if stalled is None else min(1.0, stalled / 1e6)

    used = rate(before.cpu_us, after.cpu_us, elapsed_s)
    return {
        "version": after.version,
        "cpu_limit_cores": after.cpu_limit_cores,
        "memory_used_bytes": after.memory.used_bytes,
        "memory_anonymous_bytes": after.memory.anonymous_bytes,
        "memory_limit_bytes": after.memory.limit_bytes,
        "memory_peak_bytes": after.memory.peak_bytes,
        "oom_kills": after.memory.oom_kills,
        "cpu_cores": None if used is None else used / 1e6,
        "cpu_throttled_ratio": share("throttled_us"),
        "cpu_pressure_ratio": share("cpu_pressure_us"),
        "memory_pressure_ratio": share("memory_pressure_us"),
        "io_pressure_ratio": share("io_pressure_us"),
        "read_bytes_per_s": rate(before.read_bytes, after.read_bytes, elapsed_s),
        "write_bytes_per_s": rate(before.write_bytes, after.write_bytes, elapsed_s),
    }


def _version_2(path: Path) -> Usage:
    cpu, transfers = sysfs.fields(sysfs.text(path / "cpu.stat")), sysfs.text(path / "io.stat")
    return Usage(
        version=2,
        memory=cgroup.memory(path, version=2),
        cpu_us=cpu.get("usage_usec"),
        throttled_us=cpu.get("throttled_usec"),
        cpu_limit_cores=_least(_quota(sysfs.text(path / "cpu.max")), _cpus(path / "cpuset.cpus.effective")),
        cpu_pressure_us=_pressure(path / "cpu.pressure"),
        memory_pressure_us=_pressure(path / "memory.pressure"),
        io_pressure_us=_pressure(path / "io.pressure"),
        read_bytes=_sum(r"\brbytes=(\d+)", transfers),
        write_bytes=_sum(r"\bwbytes=(\d+)", transfers),
    )


def _version_1(root: Path, paths: Mapping[str, str]) -> Usage:
    at = {name: root / name / path for name, path in paths.items()}
    nowhere = root / "absent"
    cpu, disks = at.get("cpu", nowhere), at.get("blkio", nowhere)
    usage_ns = sysfs.number(at.get("cpuacct", nowhere) / "cpuacct.usage")
    throttled_ns = sysfs.fields(sysfs.text(cpu / "cpu.stat")).get("throttled_time")
    quota_us, period_us = sysfs.number(cpu / "cpu.cfs_quota_us"), sysfs.number(cpu / "cpu.cfs_period_us")
    quota = quota_us / period_us if quota_us and period_us and quota_us > 0 else None
    transfers = sysfs.text(disks / "blkio.throttle.io_service_bytes")
    return Usage(
        version=1,
        memory=cgroup.memory(at.get("memory", nowhere), version=1),
        cpu_us=None if usage_ns is None else usage_ns / 1e3,
        throttled_us=None if throttled_ns is None else throttled_ns / 1e3,
        cpu_limit_cores=_least(quota, _cpus(at.get("cpuset", nowhere) / "cpuset.cpus")),
        read_bytes=_sum(r" Read (\d+)", transfers),
        write_bytes=_sum(r" Write (\d+)", transfers),
    )


def _quota(text: str | None) -> float | None:
    """Return the CPUs that cpu.max grants, None for ``max``."""
    quota = re.fullmatch(r"(\d+) ([1-9]\d*)", text or "")
    return int(quota[1]) / int(quota[2]) if quota else None


def _cpus(path: Path) -> int | None:
    """Return how many CPUs a list such as ``0-3,8`` names."""
    parts = re.findall(r"(\d+)(?:-(\d+))?", sysfs.text(path) or "")
    return sum(int(last or first) - int(first) + 1 for first, last in parts) or None


def _pressure(path: Path) -> int | None:
    try:
        return proc.parse_pressure(sysfs.text(path) or "")
    except ParseError:
        return None


def _sum(pattern: str, text: str | None) -> int | None:
    return None if text is None else sum(int(found) for found in re.findall(pattern, text))


def _least(*values: float | None) -> float | None:
    return min((value for value in values if value is not None), default=None)
