"""The container environment of a run: compiled once, carried as a plan file, copied into the logbook."""

from __future__ import annotations

import os
from pathlib import Path

from piolet import env
from piolet.core.files import read_json, write_json
from piolet.core.redact import redacted
from piolet.core.settings import Settings
from piolet.launch import copies
from piolet.launch.request import RunRequest
from piolet.logbook.layout import Logbook

PLAN_SUFFIX = ".plan"
LOCK_SUFFIX = ".lock.json"
VERIFIED = "SLURM_PIOLET_VERIFIED"
"""Where containers write what was verified in them; read in C. SLURM_: it passes --export=NONE."""


def plan_file(request: RunRequest, settings: Settings, *, write: bool = True) -> Path | None:
    """Return the plan file of the request's environment, None without one.

    A compiled plan is taken as it is. Anything else is compiled, and written with its lock beside it. If `write`
    is false, nothing is written or imported: the name is then that of a plan whose image is in the store already.
    """
    if not request.environment:
        return None
    if request.environment.endswith(PLAN_SUFFIX):
        return request.cwd / request.environment
    environ = os.environ | {"PWD": str(request.cwd)}
    plan = env.compile_environment(
        request.environment, environ=environ, cwd=request.cwd, settings=settings, fetch=write
    )
    plan = copies.in_plan(plan, request.copies)
    directory = env.plan_directory(settings, os.environ)
    if not write:
        return directory / plan.file_name
    path = env.write_plan(plan, directory)
    write_json(path.with_suffix(LOCK_SUFFIX), redacted(env.lock(plan, environ=os.environ)))
    return path


def keep_lock(plan: Path, logbook: Logbook) -> None:
    """Copy the lock of a plan into the logbook, if the plan has one."""
    lock = plan.with_suffix(LOCK_SUFFIX)
    if lock.is_file():
        write_json(logbook.environment_lock, redacted(read_json(lock)))
