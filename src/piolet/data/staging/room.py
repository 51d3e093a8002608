"""Whether a place on this node may take what is to be staged: local, not in use for something else, with room."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from piolet.core.errors import ParseError, StorageError
from piolet.core.files import read_json, write_json
from piolet.core.text import size
from piolet.data.staging.tree import Tree
from piolet.tools import cgroup, mountinfo, proc

LOCAL = frozenset({"tmpfs", "ramfs", "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay"})
"""File systems of one node: elsewhere all nodes would write the same files."""

_USABLE = 0.9
"""The share of what is free that may be taken: programs need memory, and disks are slow when full."""


def record_of(target: Path) -> Path:
    """Return where it is noted what was staged to `target`."""
    return target.with_name(f".{target.name}.piolet-staged.json")


def left_at(target: Path) -> list[Path]:
    """Return what stagings to `target` that were killed left beside it."""
    return [
        path for end in ("partial", "old") for path in target.parent.glob(f".{glob.escape(target.name)}.????????.{end}")
    ]


def note(target: Path, tree: Tree, source: str) -> None:
    """Note what was staged to `target`."""
    write_json(record_of(target), {"source": source, "digest": tree.digest, "bytes": tree.size_bytes})


def staged(target: Path) -> str | None:
    """Return the digest of the tree that was staged to `target`; None if nothing was."""
    try:
        return str(read_json(record_of(target))["digest"])
    except (StorageError, ParseError, KeyError, TypeError):
        return None


def holds(target: Path, tree: Tree) -> bool:
    """Return whether `target` is this very tree, staged before and not changed since."""
    return staged(target) == tree.digest and tree.lies_at(target)


def objection(target: Path, tree: Tree) -> str:
    """Return why `tree` cannot be staged to `target` on this node; empty if it can."""
    above = next(each for each in target.parents if each.exists())
    mount = mountinfo.holding(above, mountinfo.mounted())
    if mount.kind not in LOCAL:
        return f"{above} is on {mount.kind}, which is not known to be this node's own"
    if os.path.lexists(target) and staged(target) is None:
        return f"{target} is there, and was not staged by piolet"
    if not os.access(above, os.W_OK | os.X_OK):
        return f"you may not write to {above}"
    room = _room(above, in_memory=mount.in_memory)
    if tree.size_bytes > _USABLE * room:
        kind = "memory" if mount.in_memory else "disk"
        return (
            f"{size(tree.size_bytes)} do not fit: {size(room)} of {kind} are free, of which {_USABLE:.0%} may be taken"
        )
    return ""


def _room(directory: Path, *, in_memory: bool) -> int:
    """Return the bytes that may be written: what the file system has free, and of memory what the node and job have."""
    there = os.statvfs(directory)
    free = there.f_bavail * there.f_frsize
    if not in_memory:
        return free
    node = proc.parse_meminfo(Path("/proc/meminfo").read_text(encoding="ascii")).available_bytes
    job = cgroup.memory_left()
    return min(free, node) if job is None else min(free, node, job)
