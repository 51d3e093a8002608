"""File systems and local disks: NFS, Lustre and the block devices that are mounted, as the family `fs`.

Sources: the kernel's fs/nfs/super.c and net/sunrpc/stats.c for /proc/self/mountstats (statvers 1.1), the llite
statistics of the Lustre manual, proc_pid_mountinfo(5), Documentation/admin-guide/iostats.rst.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piolet.core.nouns import Severity
from piolet.record.collector import Context, Entry, NotApplicable, event, rate
from piolet.tools import mountinfo, sysfs
from piolet.tools.mountinfo import Mount
from piolet.tools.proc import SECTOR_BYTES

_LLITE = ("fs/lustre/llite", "kernel/debug/lustre/llite")
"""Below /proc up to Lustre 2.11, below /sys from 2.12 on, where most sites let only root read."""
_LUSTRE_METADATA = re.compile(
    "open|close|fsync|readdir|setattr|truncate|flock|getattr|fallocate|create|link|unlink|symlink|mkdir|rmdir|mknod|rename"
    "|statfs|setxattr|getxattr|listxattr|removexattr"
)
_NFS_DATA = frozenset({"READ", "WRITE", "COMMIT", "NULL"})
_NFS_OPENS = ("OPEN", "OPEN_NOATTR")
_MOUNT = re.compile(r"^device (.+) mounted on (.+) with fstype nfs4? statvers=")
_NFS_BYTES = re.compile(r"^\s+bytes:\s+((?:\d+ ?){8})$", re.MULTILINE)
_NFS_OP = re.compile(r"^\s+([A-Z_0-9]+): ((?:\d+ ?){8,})$", re.MULTILINE)
_LUSTRE_LINE = re.compile(r"^(\w+) +(\d+) samples \[(\w+)\](?: \d+ \d+ (\d+))?", re.MULTILINE)
_DISK_FIELDS = 13


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals of one file system or disk, times in seconds over all operations; None is what it does not count."""

    kind: str
    read_bytes: int | None = None
    write_bytes: int | None = None
    read_ops: int | None = None
    write_ops: int | None = None
    open_ops: int | None = None
    metadata_ops: int | None = None
    read_s: float | None = None
    write_s: float | None = None
    busy_s: float | None = None
    retransmits: int | None = None


class FileSystemCollector:
    """Samples every network file system and local disk that is mounted."""

    family = "fs"

    def __init__(self, context: Context) -> None:
        self._proc, self._sys = context.proc, context.sys
        self._before_s, self._before = time.monotonic(), read(self._proc, self._sys)
        hidden = hidden_lustre(self._proc, self._before)
        if not self._before and not hidden:
            raise NotApplicable("no NFS, Lustre or local disk is mounted", where=str(self._proc / "self/mountinfo"))
        self._untold = [f"fs: the counters of {point} can be read by root only" for point in hidden]

    def collect(self, time_ns: int) -> list[Entry]:
        """Return a row for each file system and disk, and, once, an event for each that hides its counters."""
        now_s, after = time.monotonic(), read(self._proc, self._sys)
        elapsed_s = now_s - self._before_s
        rows: list[Entry] = [
            ("fs", {"time_ns": time_ns, "fs": name} | derive(self._before.get(name), counters, elapsed_s))
            for name, counters in after.items()
        ]
        rows += [
            event(time_ns, "collector", "unavailable", message, severity=Severity.WARNING) for message in self._untold
        ]
        self._before_s, self._before, self._untold = now_s, after, []
        return rows


def derive(before: Counters | None, after: Counters, elapsed_s: float) -> dict[str, Any]:
    """Return the columns of `fs` from two readings; what was not mounted before has no rates yet."""
    old = before or Counters(after.kind)

    def per_s(name: str) -> float | None:
        return rate(getattr(old, name), getattr(after, name), elapsed_s)

    busy = per_s("busy_s")
    return {f"{name}_per_s": per_s(name) for name in ("read_bytes", "write_bytes")} | {
        "kind": after.kind,
        "read_ops_per_s": per_s("read_ops"),
        "write_ops_per_s": per_s("write_ops"),
        "open_ops_per_s": per_s("open_ops"),
        "metadata_ops_per_s": per_s("metadata_ops"),
        "read_latency_s": _mean(per_s("read_s"), per_s("read_ops")),
        "write_latency_s": _mean(per_s("write_s"), per_s("write_ops")),
        "busy_ratio": None if busy is None else min(1.0, busy),
        "retransmits": after.retransmits,
    }


def read(proc: Path, sys: Path) -> dict[str, Counters]:
    """Read the counters of everything that is mounted, below /proc and /sys, by mount point or name of the disk."""
    mounts = _mounts(proc)
    points = {mount.path for mount in mounts}
    nfs = parse_mountstats(sysfs.text(proc / "self/mountstats") or "")
    found = {point: counters for point, counters in nfs.items() if point in points}
    for root, below in zip((proc, sys), _LLITE, strict=True):
        for client in sysfs.entries(root / below):
            if (content := sysfs.text(client / "stats")) is not None:
                found[_lustre_point(client.name, mounts)] = parse_llite(content)
    return found | parse_disks(sysfs.text(proc / "diskstats") or "", mounts)


def hidden_lustre(proc: Path, found: Mapping[str, Counters]) -> list[str]:
    """Return the mount points of Lustre whose counters are not in `found`."""
    mounts = _mounts(proc)
    seen = {name for name, counters in found.items() if counters.kind == "lustre"}
    return sorted({mount.path for mount in mounts if mount.kind == "lustre"} - seen)


def _mounts(proc: Path) -> list[Mount]:
    """Return the first mount of each device, for binds of it have the same counters."""
    found: dict[str, Mount] = {}
    for mount in mountinfo.parse(sysfs.text(proc / "self/mountinfo") or ""):
        found.setdefault(mount.device, mount)
    return list(found.values())


def parse_mountstats(text: str) -> dict[str, Counters]:
    """Parse /proc/PID/mountstats: NFS by mount point. Bytes are those that went over the network."""
    sections = re.split(r"^(?=device )", text, flags=re.MULTILINE)
    return {mountinfo.unescaped(match[2]): _nfs(section) for section in sections if (match := _MOUNT.match(section))}


def _nfs(section: str) -> Counters:
    transferred = [int(word) for line in _NFS_BYTES.findall(section) for word in line.split()]
    ops = {name: [int(word) for word in numbers.split()] for name, numbers in _NFS_OP.findall(section)}
    counted = {name: values[0] for name, values in ops.items()}
    opens = [counted[name] for name in _NFS_OPENS if name in counted]
    return Counters(
        "nfs",
        read_bytes=transferred[4] if transferred else None,
        write_bytes=transferred[5] if transferred else None,
        read_ops=counted.get("READ"),
        write_ops=counted.get("WRITE"),
        open_ops=sum(opens) if opens else None,
        metadata_ops=sum(counted[name] for name in counted.keys() - _NFS_DATA) if counted else None,
        read_s=ops["READ"][7] / 1e3 if "READ" in ops else None,
        write_s=ops["WRITE"][7] / 1e3 if "WRITE" in ops else None,
        retransmits=sum(max(0, values[1] - values[0]) for values in ops.values()) if ops else None,
    )


def parse_llite(text: str) -> Counters:
    """Parse `stats` of a Lustre client. Times are there from Lustre 2.13 on; a line is there once it has counted."""
    lines = {name: (int(count), unit, int(total or 0)) for name, count, unit, total in _LUSTRE_LINE.findall(text)}
    times_s = {name: total / 1e6 for name, (_, unit, total) in lines.items() if unit in {"usec", "usecs"}}
    read_ops, _, read_bytes = lines.get("read_bytes", (0, "", 0))
    write_ops, _, write_bytes = lines.get("write_bytes", (0, "", 0))
    return Counters(
        "lustre",
        read_bytes,
        write_bytes,
        read_ops,
        write_ops,
        open_ops=lines.get("open", (0,))[0],
        metadata_ops=sum(line[0] for name, line in lines.items() if _LUSTRE_METADATA.fullmatch(name)),
        read_s=times_s.get("read"),
        write_s=times_s.get("write"),
    )


def _lustre_point(client: str, mounts: list[Mount]) -> str:
    """Return where a client such as ``scratch-ffff8a01`` is mounted, else the name of its file system."""
    name = client.rpartition("-")[0]
    sources = re.compile(rf".*:/{re.escape(name)}(/.*)?")
    points = (mount.path for mount in mounts if mount.kind == "lustre" and sources.fullmatch(mount.source))
    return next(points, name)


def parse_disks(text: str, mounts: list[Mount]) -> dict[str, Counters]:
    """Parse /proc/diskstats: the devices that are mounted, by the kernel's name, without loops (they lie on others)."""
    numbers = {mount.device for mount in mounts}
    names = {mount.source.removeprefix("/dev/") for mount in mounts}
    rows = (line.split() for line in text.splitlines())
    return {
        words[2]: _disk([int(word) for word in words[3:]])
        for words in rows
        if len(words) > _DISK_FIELDS
        and all(word.isdigit() for word in words[3:])
        and (f"{words[0]}:{words[1]}" in numbers or words[2] in names)
        and not words[2].startswith("loop")
    }


def _disk(values: list[int]) -> Counters:
    reads, _, sectors_read, read_ms, writes, _, sectors_written, write_ms, _, busy_ms = values[:10]
    return Counters(
        "disk",
        sectors_read * SECTOR_BYTES,
        sectors_written * SECTOR_BYTES,
        reads,
        writes,
        read_s=read_ms / 1e3,
        write_s=write_ms / 1e3,
        busy_s=busy_ms / 1e3,
    )


def _mean(time_per_s: float | None, ops_per_s: float | None) -> float | None:
    return time_per_s / ops_per_s if time_per_s is not None and ops_per_s else None
