"""Scanning the job around this process, on this node."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection

from piolet.core.errors import UsageError
from piolet.guard.finding import Scan
from piolet.guard.job import gpus, processes, scan
from piolet.tools.slurm import allocation


def scan_here(declared: Collection[int], pid: int | None = None) -> Scan:
    """Scan the job around this process, or `pid` and all below it; `declared` ports are meant to be open.

    Raises:
        UsageError: this is no job and no `pid` is given, or there is no such process.
        PioletError: the GPU driver refuses.
    """
    around = allocation.from_environ(os.environ)
    if pid is None and around is None:
        raise UsageError(
            "not within a job", where="SLURM_JOB_ID", remedy="run this on a node of the job, or give --pid PID"
        )
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    pids = processes.below(pid) if pid is not None else processes.of_job(os.environ["SLURM_JOB_ID"], node)
    left = gpus.leftovers(pids, around.job_gpus) if around else ()
    return scan.scan_job(processes.look(pids), left, declared, node)
