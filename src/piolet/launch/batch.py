"""The batch script that `piolet run` writes: plain Slurm on top, and one readable command below."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from piolet import __version__
from piolet.core.text import plural
from piolet.launch import warning
from piolet.launch.request import RunRequest
from piolet.tools.slurm import sbatch


def script(
    request: RunRequest,
    *,
    plan: Path | None,
    gpus_per_node: int,
    output: Path,
    delay_s: float = 0,
    attendant: Sequence[str] = (),
) -> str:
    """Return the script; `output` is the file for everything it prints, with Slurm's %j for the job id.

    The job begins `delay_s` seconds from its submission at the earliest. An `attendant` is the command of Piolet that
    starts the run instead of the script itself.
    """
    options = sbatch.options(_asked(request, gpus_per_node, output, delay_s))
    body = [
        f"# Written by piolet run {__version__}: an ordinary job; read it, change it, submit it with sbatch.",
        f"# It holds {_held(request)}. Nodes are vetted and recorded as a whole, so the job has them for itself.",
        *([f"exec {_piolet()} {shlex.join(attendant)} -- \\"] if attendant else []),
        f"{'  ' if attendant else 'exec '}{_piolet()} run \\",
        *(f"  {line} \\" for line in _arguments(request, plan)),
        f"  -- {shlex.join(request.command)}",
    ]
    return sbatch.script(options, "\n".join(body))


def _held(request: RunRequest) -> str:
    spares = f" and {plural(request.spares, 'spare')}" if request.spares else ""
    return f"{plural(request.nodes, 'node')}{spares}"


def _asked(request: RunRequest, gpus_per_node: int, output: Path, delay_s: float) -> sbatch.Request:
    return sbatch.Request(
        nodes=request.nodes + request.spares,
        name=request.job_name,
        partition=request.partition,
        account=request.account,
        time_limit=request.time_limit,
        gpus_per_node=gpus_per_node or None,
        ntasks_per_node=request.tasks_per_node,
        exclusive=True,
        output=str(output),
        chdir=str(request.cwd),
        exclude=request.exclude,
        requeue=False,
        extra=(
            "--mem=0",
            *([f"--begin=now+{round(delay_s)}"] if delay_s else []),
            *([warning.parse(request.signal).option] if request.signal else []),
        ),
    )


def _arguments(request: RunRequest, plan: Path | None) -> list[str]:
    lines = [f"--nodes {request.nodes} --spares {request.spares} --ntasks-per-node {request.tasks_per_node}"]
    if plan:
        lines.append(f"--env {shlex.quote(str(plan))}")
    if request.protocol:
        lines.append(f"--vet {shlex.quote(request.protocol)}")
    if request.record:
        lines.append("--record")
    lines += [f"--stage {shlex.quote(str(copy))}" for copy in request.copies]
    if request.abort_on:
        lines.append(f"--abort-on {','.join(request.abort_on)}")
    if request.heartbeat_s is not None:
        lines.append(f"--heartbeat {request.heartbeat_s:g}")
    lines += [f"--signal {request.signal}"] if request.signal else []
    lines += [f"--chain {request.chain}"] if request.chain else []
    lines += [f"--checkpoint {request.checkpoint_s:g}"] if request.checkpoint_s is not None else []
    if request.restarts or request.chain or request.signal or request.previous_job:
        lines.append(f"--restarts {request.restarts} --attempt {max(request.attempt, 1)}")
        lines += [f"--previous-job {request.previous_job}"] if request.previous_job else []
        lines += [f"--exclude {shlex.quote(request.exclude)}"] if request.exclude else []
    return lines


def _piolet() -> str:
    command = Path(sys.executable).parent / "piolet"
    return shlex.quote(str(command)) if command.exists() else f"{shlex.quote(sys.executable)} -m piolet"
