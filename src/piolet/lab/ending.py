"""Take a lab down: its jobs, processes, links, cgroups and files, whatever state it is in."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from piolet.core.errors import PioletError, storage_errors
from piolet.core.run import Runner, SystemRunner
from piolet.core.settings import LabSettings
from piolet.lab import machine, processes
from piolet.lab.directory import bridge_name, group_name, labs_directory
from piolet.lab.spec import check_name

_SLURM_S = 5.0
_JOBS_S = 4.0
_PROCESSES_S = 15.0
_CGROUPS_S = 5.0
_IP_TIMEOUT_S = 20.0
_POLL_S = 0.05
_CGROUPS = Path("/sys/fs/cgroup")


def down(name: str = "lab", directory: Path | None = None) -> bool:
    """End the jobs of lab `name` and remove all of it; return whether there was anything to remove.

    Works on a lab that was never finished, half taken down, or whose daemons are dead.

    Raises:
        Refused: not root.
        PioletError: a process of it does not die.
        StorageError: a file of it cannot be removed.
    """
    check_name(name)
    machine.require_root("taking a lab down")
    home = labs_directory(directory)
    with machine.one_at_a_time():
        existed = (home / name).exists() or bool(processes.members(home / name))
        if existed:
            _end_jobs(home / name)
            remove(home / name)
        return existed


def remove(lab: Path, *, keep_directory: bool = False) -> None:
    """Kill the processes of the lab in directory `lab` and remove its links, cgroups and files.

    lab.json goes first, so that a kill in between leaves a lab that is to be taken down, never one that looks whole.
    """
    with storage_errors(lab, "remove the lab's record"):
        (lab / "lab.json").unlink(missing_ok=True)
    processes.end_members(lab, _PROCESSES_S)
    _remove_links(lab)
    _remove_groups(lab)
    with storage_errors(lab, "remove the lab's files"):
        for path in lab.iterdir() if lab.exists() else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not keep_directory:
            _remove_if_empty(lab, *_own_directories(lab.parent))
    if not processes.node_mount_in_use():
        _remove_if_empty(processes.NODE_MOUNT)


def _own_directories(home: Path) -> tuple[Path, ...]:
    """Return the directories that are Piolet's own; one that somebody configured is theirs, even when empty."""
    default = Path(LabSettings().directory)
    return (default, default.parent) if home == default else ()


def _end_jobs(lab: Path) -> None:
    """Cancel every job and give srun and salloc a moment to hear of it; the processes are killed afterwards anyway."""
    if not (lab / "etc" / "slurm.conf").exists() or "slurmctld" not in processes.daemons(lab):
        return
    runner = SystemRunner(env={"SLURM_CONF": str(lab / "etc" / "slurm.conf")})
    try:
        jobs = _jobs(runner)
        if jobs:
            runner.run(["scancel", "--signal=KILL", "--full", *jobs], timeout=_SLURM_S, ok=None)
            runner.run(["scancel", *jobs], timeout=_SLURM_S, ok=None)
            deadline = time.monotonic() + _JOBS_S
            while _jobs(runner) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
    except PioletError:
        return  # a controller that does not answer is no reason to keep its lab


def _jobs(runner: Runner) -> list[str]:
    return runner.run(["squeue", "--noheader", "--format=%A"], timeout=_SLURM_S).stdout.split()


def _remove_if_empty(*directories: Path) -> None:
    for directory in directories:
        try:
            directory.rmdir()
        except OSError:
            return  # in use, or not there


def _remove_links(directory: Path) -> None:
    """Delete the bridge and every link of the lab in `directory`, also after a half-way start."""
    prefix = bridge_name(directory)
    for path in Path("/sys/class/net").glob(f"{prefix}*"):
        # The kernel deletes the link of a namespace that has just ended at about the same time: either is well.
        SystemRunner().run(["ip", "link", "delete", path.name], timeout=_IP_TIMEOUT_S, ok=None)


def _remove_groups(directory: Path) -> None:
    """Remove the cgroups of the lab in `directory`, whose processes have ended; wait while the kernel lets go."""
    deadline = time.monotonic() + _CGROUPS_S
    for top in _CGROUPS.glob(f"*/{group_name(directory)}"):
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
