"""The batch script that `piolet run` writes: plain Slurm on top, and one readable command below."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from piolet import __version__
from piolet.core.text import plural
from piolet.launch.request import RunRequest


def script(request: RunRequest, *, plan: Path | None, gpus_per_node: int, output: Path) -> str:
    """Return the script; `output` is the file for everything it prints, with Slurm's %j for the job id."""
    lines = [
        "#!/bin/bash",
        f"# Written by piolet run {__version__}. It is an ordinary job: read it, change it, submit it with sbatch.",
        *(f"#SBATCH {option}" for option in _options(request, gpus_per_node, output)),
        "",
        f"exec {_piolet()} run \\",
        *(f"  {line} \\" for line in _arguments(request, plan)),
        f"  -- {shlex.join(request.command)}",
    ]
    return "\n".join(lines) + "\n"


def _options(request: RunRequest, gpus_per_node: int, output: Path) -> list[str]:
    held = f"  # {request.nodes} and {plural(request.spares, 'spare')}" if request.spares else ""
    options = [
        f"--job-name={shlex.quote(request.job_name)}",
        f"--nodes={request.nodes + request.spares}{held}",
        f"--ntasks-per-node={request.tasks_per_node}",
        "--exclusive  # nodes are vetted and recorded as a whole",
        "--mem=0",
        f"--output={shlex.quote(str(output))}",
        f"--chdir={shlex.quote(str(request.cwd))}",
        "--no-requeue",
    ]
    optional = {
        "--gpus-per-node": str(gpus_per_node or ""),
        "--partition": request.partition,
        "--account": request.account,
        "--time": request.time_limit,
        "--exclude": request.exclude,
    }
    return options + [f"{name}={shlex.quote(value)}" for name, value in optional.items() if value]


def _arguments(request: RunRequest, plan: Path | None) -> list[str]:
    lines = [f"--nodes {request.nodes} --spares {request.spares} --ntasks-per-node {request.tasks_per_node}"]
    if plan:
        lines.append(f"--env {shlex.quote(str(plan))}")
    if request.protocol:
        lines.append(f"--vet {shlex.quote(request.protocol)}")
    if request.record:
        lines.append("--record")
    return lines


def _piolet() -> str:
    command = Path(sys.executable).parent / "piolet"
    return shlex.quote(str(command)) if command.exists() else f"{shlex.quote(sys.executable)} -m piolet"
