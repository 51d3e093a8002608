"""The step of recorders in a Slurm job: beside the program's, on its nodes, with all GPUs that the job has there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from piolet.core.nodeset import NodeSet
from piolet.record.agent import agent_argv
from piolet.tools.slurm import srun


def recorders_argv(
    logbook: Path,
    nodes: NodeSet,
    gpus_per_node: int | None,
    *,
    job: int | None = None,
    interval_s: float | None = None,
    rates: Sequence[str] = (),
    extra: Sequence[str] = (),
) -> list[str]:
    """Return the srun command of one recorder a node and another that stands by; `job` is one to join from outside.

    `extra` are options of srun. Without `interval_s` and `rates` the settings are those that the nodes read.
    """
    step = srun.Step(
        job=job,
        name="record",
        nodes=len(nodes),
        ntasks=2 * len(nodes),
        ntasks_per_node=2,
        nodelist=nodes,
        gpus_per_node=gpus_per_node,
        overlap=True,
        extra=("--kill-on-bad-exit=0", "--overcommit", *extra),
    )
    agent = agent_argv(logbook, standby=True, whole_job=job is not None, interval_s=interval_s, rates=rates)
    return srun.argv(step, agent)
