"""A cgroup v1 directory per lab and node in every hierarchy; the node's processes see it as the root (node.sh)."""

from __future__ import annotations

from pathlib import Path

from piolet.core.errors import storage_errors
from piolet.lab.cluster import Lab
from piolet.lab.directory import group_name
from piolet.lab.spec import Isolation

_HIERARCHIES = ("freezer", "memory", "devices", "cpuset", "cpuacct", "cpu")
_ROOT = Path("/sys/fs/cgroup")


def ensure_groups(lab: Lab) -> None:
    """Make the lab's directories, with all CPUs and memory nodes, if the lab isolates jobs."""
    if lab.spec.isolation is Isolation.NONE:
        return
    with storage_errors(_ROOT, "create the lab's cgroups"):
        for hierarchy in _HIERARCHIES:
            top = _ROOT / hierarchy / group_name(lab.directory)
            for path in (top, *(top / node for node in lab.nodes)):
                path.mkdir(exist_ok=True)
                _inherit_cpus(path)


def _inherit_cpus(path: Path) -> None:
    """Copy the parent's CPUs and memory nodes: a new cpuset has none, and takes no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (path / name).exists() and not (path / name).read_text().strip():
            (path / name).write_text((path.parent / name).read_text())
