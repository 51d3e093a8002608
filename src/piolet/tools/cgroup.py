"""How much memory this process's control groups still allow, versions 1 and 2.

Files in tmpfs count for the group that wrote them, so a job may be killed for them although the node has memory left.
Sources: the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from piolet.tools import sysfs

_UNLIMITED_FROM = 1 << 60
"""Version 1 says "no limit" with the largest number of pages."""


def memory_left(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> int | None:
    """Return the bytes that the tightest group above this process leaves; None if none limits it."""
    lines = (sysfs.text(proc / "self/cgroup") or "").splitlines()
    return min((left for line in lines for left in _left(sys / "fs/cgroup", line)), default=None)


def _left(root: Path, line: str) -> Iterator[int]:
    _, controllers, path = line.split(":", 2)
    if controllers not in {"", "memory"}:
        return
    top = root / controllers
    limit, used = ("memory.max", "memory.current") if not controllers else _VERSION_1
    group = top / path.lstrip("/")
    for each in (group, *group.parents):
        if not each.is_relative_to(top):
            return
        most, now = sysfs.number(each / limit), sysfs.number(each / used)
        if most is not None and now is not None and most < _UNLIMITED_FROM:
            yield max(most - now, 0)


_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
