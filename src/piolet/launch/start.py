"""Where a run begins: on this machine, inside an allocation, or on a login node that submits it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from piolet import vet
from piolet.core.config import load
from piolet.core.errors import UsageError
from piolet.core.settings import Settings
from piolet.core.text import plural
from piolet.launch import conductor, environment, guarding, local, request, session, submission
from piolet.launch.allocated import AllocatedMachine
from piolet.launch.machine import Machine
from piolet.launch.request import How, RunRequest
from piolet.logbook import layout
from piolet.logbook.layout import Logbook
from piolet.tools.slurm import allocation as allocations

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
    environ = _component(os.environ, how.het_group)
    allocation = allocations.from_environ(environ)
    if allocation:
        return _run_allocated(asked, AllocatedMachine(allocation, settings, None, environ, how.het_group))
    return submission.submit_and_follow(asked, settings, how)


def _component(environ: Mapping[str, str], group: int | None) -> Mapping[str, str]:
    """Return what Slurm says of our nodes; in a heterogeneous job of those of one component, which must be named."""
    components = allocations.het_groups(environ)
    if group is None and len(components) <= 1:
        return environ
    if not components:
        raise UsageError("this is in no heterogeneous job", where="--het-group", remedy="leave it out")
    if group not in components:
        known = "; ".join(f"{number}: {nodes}" for number, nodes in components.items())
        raise UsageError(
            f"this job has {plural(len(components), 'component')} ({known})",
            where="--het-group",
            remedy="name the one whose nodes the program gets, such as --het-group 0",
        )
    return allocations.of_component(environ, group)


def _run_allocated(asked: RunRequest, machine: AllocatedMachine) -> int:
    allocation, settings = machine.allocation, machine.settings
    if (asked.restarts or asked.chain or asked.signal) and not asked.attempt:
        raise UsageError(
            "only a job that piolet run has submitted can be warned or submitted again",
            where="--restarts, --chain or --signal inside of an allocation",
            remedy="leave them out here, or call piolet run on a login node",
        )
    if asked.copies and machine.het_group is not None:
        raise UsageError("--stage copies to whole jobs, not to components", remedy="leave --stage or --het-group out")
    held = allocation.nodes
    if len(held) < asked.nodes:
        raise UsageError(
            f"{plural(asked.nodes, 'node')} wanted, job {allocation.job} has {len(held)}: {held}",
            remedy="ask for fewer, or allocate more (and spares) before",
        )
    machine.plan = environment.plan_file(asked, settings)
    cluster = settings.cluster or allocation.cluster or "slurm"
    return _conducted(asked, machine, settings, cluster=cluster, job_id=str(allocation.job), plan=machine.plan)


def _run_locally(asked: RunRequest, how: How, settings: Settings) -> int:
    if asked.abort_on or asked.heartbeat_s is not None:
        raise UsageError("--abort-on and --heartbeat are for jobs", remedy="leave them out with --local")
    if asked.restarts or asked.chain or asked.signal or asked.copies or how.max_wait_s is not None:
        what = "--restarts, --chain, --signal, --stage and --max-wait are for jobs"
        raise UsageError(what, remedy="leave them out with --local")
    if asked.spares:
        raise UsageError("there are no spares on one machine", remedy="leave --spares out with --local")
    if how.dry_run or how.detach or how.het_group is not None:
        raise UsageError("--dry-run, --detach and --het-group are for jobs", remedy="leave them out with --local")
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
    begun = session.begin(asked, machine, logbook, settings, cluster=cluster, job_id=job_id)
    if plan:
        environment.keep_lock(plan, logbook)
    return conductor.conduct(begun, protocol)
