"""The gate before a run or a service: its command, scripts and files must pass the policy of the guard."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from piolet.core.settings import Settings
from piolet.env import lookup
from piolet.guard import gates, policy
from piolet.guard.finding import Level, Scan
from piolet.guard.texts import scan_environments
from piolet.launch.environment import PLAN_SUFFIX
from piolet.launch.request import RunRequest
from piolet.launch.telling import say

_SCRIPTS = {".py", ".sh", ".bash", ".sbatch", ".slurm"}


def check(request: RunRequest, settings: Settings) -> None:
    """Raise Refused for what fails or cannot be checked; say what the policy only warns of."""
    words = [request.cwd / word for word in request.command if Path(word).suffix in _SCRIPTS]
    scripts = [path for path in words if path.is_file()]
    scan = gates.scan_run(shlex.join(request.command), scripts, _environment_files(request, settings))
    _pass(scan, settings)


def check_files(paths: Sequence[Path], settings: Settings) -> None:
    """Do so for the files of a service."""
    _pass(scan_environments(paths), settings)


def _pass(scan: Scan, settings: Settings) -> None:
    verdict = gates.gate(scan, policy.read(settings.guard.policy))
    for each in verdict.judged:
        if each.level is Level.WARN:
            say(f"guard: {gates.shown(each)}")


def _environment_files(request: RunRequest, settings: Settings) -> list[Path]:
    """Return the EDF of the request and all that it builds on; of a compiled plan, the plan."""
    if not request.environment:
        return []
    if request.environment.endswith(PLAN_SUFFIX):
        return [request.cwd / request.environment]
    context = lookup.Context(os.environ | {"PWD": str(request.cwd)}, request.cwd, settings)
    return [each.path for each in lookup.chain(lookup.find(request.environment, context), context)]
