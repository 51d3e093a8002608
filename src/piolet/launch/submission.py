"""From a login node into the queue: check what can be checked, then submit."""

from __future__ import annotations

import sys
from pathlib import Path

from piolet import vet
from piolet.core.errors import UsageError, storage_errors
from piolet.core.run import Runner, SystemRunner
from piolet.core.settings import Settings
from piolet.core.stopping import stoppable, undisturbed
from piolet.core.text import did_you_mean, plural
from piolet.launch import batch, environment
from piolet.launch.following import Follower
from piolet.launch.request import How, RunRequest
from piolet.logbook import layout
from piolet.tools.slurm import sbatch, scontrol, sinfo


def submit_and_follow(request: RunRequest, settings: Settings, how: How) -> int:
    """Submit `request` as a job and follow it to its end; return its exit status."""
    runner = SystemRunner(own_session=True)
    gpus = gpus_per_node(runner, request)
    if request.protocol:
        vet.load_protocol(request.protocol, settings)
    plan = environment.plan_file(request, settings, write=not how.dry_run)
    root = layout.root(settings) / (settings.cluster or scontrol.config(runner)["ClusterName"])
    script = batch.script(request, plan=plan, gpus_per_node=gpus, output=root / "%j.log")
    if how.dry_run:
        sys.stdout.write(script)
        return 0
    check_writable(root)
    with stoppable():
        with undisturbed():
            follower = Follower(runner, _submitted(script), root, how.max_wait_s)
            follower.refuse_old_traces()
        return follower.detach() if how.detach else follower.follow()


def _submitted(script: str) -> int:
    """Submit with the user's own locale, which the job inherits, and out of reach of the terminal's Ctrl-C."""
    return sbatch.submit(script, runner=SystemRunner(own_session=True, speech={})).job


def gpus_per_node(runner: Runner, request: RunRequest) -> int:
    """Return the GPUs to ask for on each node; refuse more nodes than the partition has."""
    partitions = sinfo.partitions(runner, request.partition)
    partition = next((each for each in partitions if request.partition or each.default), None)
    if partition is None:
        known = [each.name for each in sinfo.partitions(runner)]
        what = f'no partition "{request.partition}"' if request.partition else "the cluster has no default partition"
        raise UsageError(what, where="--partition", remedy=did_you_mean(request.partition, known))
    wanted = request.nodes + request.spares
    if wanted > partition.total:
        raise UsageError(
            f"{plural(wanted, 'node')} wanted, partition {partition.name} has {partition.total}",
            where="--nodes and --spares",
            remedy=f"ask for at most {partition.total} in all, or choose another partition (sinfo -s)",
        )
    if request.gpus_per_node is not None:
        return request.gpus_per_node
    return min((node.gpus for node in sinfo.nodes(runner, partition.name)), default=0)


def check_writable(root: Path) -> None:
    """Find out before nodes are held whether the job could keep its logbook here."""
    with storage_errors(root, "keep logbooks"):
        root.mkdir(parents=True, exist_ok=True)
        probe = root / ".writable"
        probe.write_text("Piolet looks whether it can write here.\n", encoding="utf-8")
        probe.unlink()
