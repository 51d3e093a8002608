"""Where this process is in Slurm, from the SLURM_* variables that slurmd gives to batch scripts and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from piolet.core.errors import ParseError
from piolet.core.nodeset import NodeSet
from piolet.tools.slurm.tres import parse_indexes


@dataclass(frozen=True, slots=True)
class Allocation:
    """The job that this process belongs to.

    `nodes` are the job's, `step_nodes` those of this step (all of the job's outside a step). `node` and
    `node_index` are this process's own, the index counting within the step. `job_gpus` are the indexes of the
    job's GPUs on this node, `step_gpus` those of the step; None where Slurm does not say. `step` is None
    outside of steps, such as in a batch script. After a shrink the variables still name the old nodes.
    """

    job: int
    nodes: NodeSet
    step_nodes: NodeSet
    cluster: str = ""
    partition: str = ""
    array_job: int | None = None
    array_task: int | None = None
    step: str | None = None
    node: str = ""
    node_index: int = 0
    rank: int = 0
    local_rank: int = 0
    ntasks: int = 1
    job_gpus: tuple[int, ...] | None = None
    step_gpus: tuple[int, ...] | None = None

    @property
    def gpus(self) -> tuple[int, ...] | None:
        """The GPUs of this process on this node: the step's, else the job's."""
        return self.job_gpus if self.step_gpus is None else self.step_gpus


def het_groups(environ: Mapping[str, str]) -> dict[int, str]:
    """Return the node list of each component of a heterogeneous job, by its number; nothing in any other job."""
    size = int(environ.get("SLURM_HET_SIZE") or 0)
    return {
        group: environ[name] for group in range(size) if (name := f"SLURM_JOB_NODELIST_HET_GROUP_{group}") in environ
    }


def of_component(environ: Mapping[str, str], group: int) -> dict[str, str]:
    """Return the environment as a component of a heterogeneous job would have it as a job of its own.

    What Slurm says only of the node that this process is on is left out, unless that is one of the component's.
    """
    suffix = f"_HET_GROUP_{group}"
    own = {name.removesuffix(suffix): value for name, value in environ.items() if name.endswith(suffix)}
    if environ.get("SLURMD_NODENAME", "") not in NodeSet(own.get("SLURM_JOB_NODELIST", "")):
        own |= dict.fromkeys(("SLURMD_NODENAME", "SLURM_JOB_GPUS", "SLURM_CPUS_ON_NODE"), "")
    return {**environ, **own}


def from_environ(environ: Mapping[str, str]) -> Allocation | None:
    """Return the allocation that `environ` tells of; None outside of Slurm.

    Raises:
        ParseError: a variable has a value that Slurm does not write.
    """
    job = _number(environ, "SLURM_JOB_ID")
    if job is None:
        return None
    in_step = "SLURM_STEP_ID" in environ
    nodes = NodeSet(environ.get("SLURM_JOB_NODELIST", ""))
    return Allocation(
        job,
        nodes,
        NodeSet(environ.get("SLURM_STEP_NODELIST", "")) if in_step else nodes,
        cluster=environ.get("SLURM_CLUSTER_NAME", ""),
        partition=environ.get("SLURM_JOB_PARTITION", ""),
        array_job=_number(environ, "SLURM_ARRAY_JOB_ID"),
        array_task=_number(environ, "SLURM_ARRAY_TASK_ID"),
        step=environ["SLURM_STEP_ID"] if in_step else None,
        node=environ.get("SLURMD_NODENAME", ""),
        node_index=_number(environ, "SLURM_NODEID") or 0,
        rank=_number(environ, "SLURM_PROCID") or 0,
        local_rank=_number(environ, "SLURM_LOCALID") or 0,
        ntasks=_number(environ, "SLURM_NTASKS") or 1,
        job_gpus=_indexes(environ, "SLURM_JOB_GPUS"),
        step_gpus=_indexes(environ, "SLURM_STEP_GPUS") if in_step else None,
    )


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ParseError("not a number", source=f"${name}", text=text)
    return int(text)


def _indexes(environ: Mapping[str, str], name: str) -> tuple[int, ...] | None:
    text = environ.get(name, "")
    return parse_indexes(text) if text else None


def outside(environ: Mapping[str, str]) -> dict[str, None]:
    """Return what a runner removes from the environment, so that a job submitted from here is no part of this one."""
    return {name: None for name in environ if name.startswith("SLURM_") and name != "SLURM_CONF"}
