"""`python -m piolet.launch.stacks JOB`: what each process of a job's program does now, on this node.

py-spy prints the Python stacks, without stopping the program for long. Where it is not there, or may not look, the
kernel's word stands: the state of the process, and what it waits for.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import PioletError
from piolet.core.run import Runner, SystemRunner

PROC = Path("/proc")
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Task:
    """A process of the job's program; `rank` is empty if it has none."""

    pid: int
    rank: str
    command: tuple[str, ...]


def main(job: str) -> None:
    """Print the stacks of every process of the job on this node."""
    for task in tasks(PROC, job, os.environ.get("SLURMD_NODENAME", "")):
        sys.stdout.write(f"== rank {task.rank}, pid {task.pid}: {' '.join(task.command)[:200]}\n{stack(task)}\n\n")
        sys.stdout.flush()


def tasks(proc: Path, job: str, node: str = "") -> Iterator[Task]:
    """Yield the processes of the job that are Python's, by rank; those of Piolet itself are left out.

    `node` is Slurm's name of the node that they are on, where several share a machine.
    """
    found = [task for directory in proc.glob("[0-9]*") if (task := _task(directory, job, node))]
    yield from sorted(found, key=lambda task: (int(task.rank) if task.rank.isdigit() else -1, task.pid))


def _task(directory: Path, job: str, node: str) -> Task | None:
    try:
        words = (directory / "environ").read_bytes().decode("utf-8", "replace").split("\0")
        command = tuple((directory / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")[:-1])
    except OSError:
        return None  # it has ended, or is somebody else's
    environ = dict(word.split("=", 1) for word in words if "=" in word)
    ours = any(word.partition(".")[0] == "piolet" or word.endswith("/piolet") for word in command[:5])
    here = environ.get("SLURM_JOB_ID") == job and environ.get("SLURMD_NODENAME", "") in {node, ""}
    if not here or ours or not any("python" in Path(word).name for word in command[:2]):
        return None
    return Task(int(directory.name), environ.get("RANK") or environ.get("SLURM_PROCID", ""), command)


def stack(task: Task, runner: Runner | None = None, proc: Path = PROC) -> str:
    """Return the Python stacks of a process, or what the kernel knows of it and why there is no more."""
    program = shutil.which("py-spy") or str(Path(sys.executable).parent / "py-spy")
    try:
        found = (runner or SystemRunner()).run([program, "dump", "--pid", str(task.pid)], timeout=TIMEOUT_S)
    except PioletError as error:
        return f"{_kernels_word(proc / str(task.pid))}\n(no Python stack: {error.what})"
    return found.stdout.rstrip()


def _kernels_word(directory: Path) -> str:
    """Return the state of a process, and the function of the kernel that it waits in."""
    try:
        state = (directory / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        waits_in = (directory / "wchan").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"gone: {error.strerror}"
    return f"state {state}, waits in {waits_in if waits_in.strip('0') else 'user space'}"


if __name__ == "__main__":
    main(sys.argv[1])
