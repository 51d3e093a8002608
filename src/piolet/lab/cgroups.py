"""A cgroup v1 directory per lab and node in every hierarchy; the node's processes see it as the root (node.sh)."""

from __future__ import annotations

import time
from pathlib import Path

from piolet.core.errors import storage_errors
from piolet.lab.cluster import Lab, short_digest
from piolet.lab.spec import Isolation

_HIERARCHIES = ("freezer", "memory", "devices", "cpuset", "cpuacct", "cpu")
_ROOT = Path("/sys/fs/cgroup")
_REMOVAL_S = 5.0
_POLL_S = 0.02


def group_name(directory: Path) -> str:
    """Return the name of the lab's directory in each hierarchy."""
    return f"piolet-{short_digest(directory)}"


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


def remove_groups(directory: Path) -> None:
    """Remove the cgroups of the lab in `directory`, whose processes have ended; wait while the kernel lets go."""
    deadline = time.monotonic() + _REMOVAL_S
    for top in _ROOT.glob(f"*/{group_name(directory)}"):
        while top.exists():
            _remove_empty(top)
            if top.exists() and time.monotonic() > deadline:
                with storage_errors(top, "remove the lab's cgroup"):
                    top.rmdir()
            time.sleep(_POLL_S if top.exists() else 0)


def _remove_empty(path: Path) -> None:
    for child in path.iterdir():
        if child.is_dir():
            _remove_empty(child)
    try:
        path.rmdir()
    except OSError:
        return  # still busy; the caller tries again


def _inherit_cpus(path: Path) -> None:
    """Copy the parent's CPUs and memory nodes: a new cpuset has none, and takes no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (path / name).exists() and not (path / name).read_text().strip():
            (path / name).write_text((path.parent / name).read_text())
