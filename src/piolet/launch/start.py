"""Where a run begins: on this machine, inside an allocation, or on a login node that submits it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from piolet import vet
from piolet.core.config import Settings, load
from piolet.core.errors import UsageError
from piolet.launch import conductor, environment, guarding, local, request, submission
from piolet.launch.allocated import AllocatedMachine
from piolet.launch.machine import Machine
from piolet.launch.request import How, RunRequest
from piolet.logbook import layout
from piolet.logbook.layout import Logbook
from piolet.tools.slurm import allocation as allocations
from piolet.tools.slurm.allocation import Allocation

LOCAL_CLUSTER = "local"


def run(asked: RunRequest, how: How, settings: Settings) -> int:
    """Run `asked` here, in the allocation that we are in, or in a new job; return the exit status."""
    request.check(asked)
    if how.simulate and not how.local:
        raise UsageError("--simulate is for --local", remedy="a lab simulates GPUs on Slurm: piolet lab up")
    if how.max_wait_s is not None and how.detach:
        raise UsageError("nobody watches a detached job, so --max-wait has no effect", remedy="leave one of them out")
    if how.guard:
        guarding.check(asked, settings)
    if how.local:
        return _run_locally(asked, how, settings)
    allocation = allocations.from_environ(os.environ)
    if allocation:
        return _run_allocated(asked, allocation, settings)
    return submission.submit_and_follow(asked, settings, how)


def _run_allocated(asked: RunRequest, allocation: Allocation, settings: Settings) -> int:
    if (asked.restarts or asked.chain or asked.signal) and not asked.attempt:
        raise UsageError(
            "only a job that piolet run has submitted can be warned or submitted again",
            where="--restarts, --chain or --signal inside of an allocation",
            remedy="leave them out here, or call piolet run on a login node",
        )
    if len(allocation.nodes) < asked.nodes:
        raise UsageError(
            f"{asked.nodes} nodes wanted, job {allocation.job} has {len(allocation.nodes)}: {allocation.nodes}",
            remedy="ask for fewer, or allocate more (and spares) before",
        )
    plan = environment.plan_file(asked, settings)
    machine = AllocatedMachine(allocation, settings, plan)
    cluster = settings.cluster or allocation.cluster or "slurm"
    return _conducted(asked, machine, settings, cluster=cluster, job_id=str(allocation.job), plan=plan)


def _run_locally(asked: RunRequest, how: How, settings: Settings) -> int:
    if asked.abort_on or asked.heartbeat_s is not None:
        raise UsageError("--abort-on and --heartbeat are for jobs", remedy="leave them out with --local")
    if asked.restarts or asked.chain or asked.signal or asked.copies or how.max_wait_s is not None:
        what = "--restarts, --chain, --signal, --stage and --max-wait are for jobs"
        raise UsageError(what, remedy="leave them out with --local")
    if asked.spares:
        raise UsageError("there are no spares on one machine", remedy="leave --spares out with --local")
    if how.dry_run or how.detach:
        raise UsageError("--dry-run and --detach are for jobs", remedy="leave them out with --local")
    plan = environment.plan_file(asked, settings)
    job_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    variables: dict[str, str] = {}
    if how.simulate:
        state = layout.root(settings) / LOCAL_CLUSTER / job_id / "gpusim" / "gpu"
        variables = local.simulated_gpus(state, how.simulate)
        settings = load(environ=os.environ | variables).settings
    machine = local.LocalMachine(plan, variables, settings.vet.timeout_s)
    return _conducted(asked, machine, settings, cluster=LOCAL_CLUSTER, job_id=job_id, plan=plan)


def _conducted(
    asked: RunRequest, machine: Machine, settings: Settings, *, cluster: str, job_id: str, plan: Path | None
) -> int:
    protocol = vet.load_protocol(asked.protocol, settings) if asked.protocol else None
    logbook: Logbook = layout.create(layout.root(settings), cluster, job_id)
    session = conductor.begin(asked, machine, logbook, settings, cluster=cluster, job_id=job_id)
    if plan:
        environment.keep_lock(plan, logbook)
    return conductor.conduct(session, protocol)
