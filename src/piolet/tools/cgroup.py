"""Control groups, versions 1 and 2: which ones a process is in, and the memory of one.

Files in tmpfs count for the group that wrote them, so a job may be killed for them although the node has memory left.
Sources: the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from piolet.tools import sysfs

ROOT = Path("fs/cgroup")
"""Below /sys."""

_UNLIMITED_FROM = 1 << 60
"""Version 1 says "no limit" with the largest number of pages."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a group was charged, in bytes, its own limit (None: it has none) and how often that killed a process."""

    used_bytes: int | None
    limit_bytes: int | None
    peak_bytes: int | None
    anonymous_bytes: int | None
    oom_kills: int | None

    @property
    def left_bytes(self) -> int | None:
        """What the group's own limit leaves; None without one."""
        if self.limit_bytes is None or self.used_bytes is None:
            return None
        return max(self.limit_bytes - self.used_bytes, 0)


def parse(text: str) -> dict[str, str]:
    """Parse /proc/PID/cgroup: the path of the group by controller; version 2 is the controller ``""``."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if number.isdigit() and colon:
            found |= dict.fromkeys(controllers.split(","), path.lstrip("/"))
    return found


def memory(group: Path, *, version: int) -> Memory:
    """Return the memory of the group whose directory is `group`; what it does not say is None."""
    counts = sysfs.fields(sysfs.text(group / "memory.stat"))
    if version == 1:
        limit = sysfs.number(group / "memory.limit_in_bytes")
        return Memory(
            sysfs.number(group / "memory.usage_in_bytes"),
            None if limit is None or limit >= _UNLIMITED_FROM else limit,
            sysfs.number(group / "memory.max_usage_in_bytes"),
            counts.get("total_rss"),
            sysfs.fields(sysfs.text(group / "memory.oom_control")).get("oom_kill"),
        )
    return Memory(
        sysfs.number(group / "memory.current"),
        sysfs.number(group / "memory.max"),
        sysfs.number(group / "memory.peak"),
        counts.get("anon"),
        sysfs.fields(sysfs.text(group / "memory.events")).get("oom_kill"),
    )


def memory_left(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> int | None:
    """Return the bytes that the tightest group above this process leaves; None if none limits it."""
    paths, root = parse(sysfs.text(proc / "self/cgroup") or ""), sys / ROOT
    version_1 = _above(root / "memory", paths["memory"]) if "memory" in paths else []
    version_2 = _above(root, paths[""]) if "" in paths else []
    found = [memory(group, version=1) for group in version_1] + [memory(group, version=2) for group in version_2]
    return min((each.left_bytes for each in found if each.left_bytes is not None), default=None)


def _above(top: Path, path: str) -> list[Path]:
    """Return the group and those that it is in, up to the topmost."""
    group = top / path
    return [each for each in (group, *group.parents) if each.is_relative_to(top)]
