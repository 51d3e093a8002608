"""A Slurm allocation as the machine of a run. Everything on other nodes is an srun step."""

from __future__ import annotations

import math
import os
import re
import sys
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from piolet import metrics, vet
from piolet.core.errors import PioletError
from piolet.core.nodeset import NodeSet
from piolet.core.run import DEVNULL, Process, SystemRunner
from piolet.core.settings import Settings
from piolet.launch import batch, output, program
from piolet.launch.copies import Copy
from piolet.launch.doom import Doom
from piolet.launch.program import Ended, Reason
from piolet.launch.request import RunRequest
from piolet.launch.telling import say
from piolet.logbook import layout
from piolet.record.step import recorders_argv
from piolet.tools.slurm import allocation as allocations
from piolet.tools.slurm import jobs, sbatch, scontrol, srun
from piolet.tools.slurm.allocation import Allocation

if TYPE_CHECKING:
    from piolet.data.staging.stage import Outcome

LAB_NODE = Path("/run/piolet-node")
"""Exists on the nodes of a lab only; there the nodes share one machine."""

FIRST_PORT, PORTS = 20000, 10000
"""MASTER_PORT is chosen below the ephemeral ports of Linux (32768), from the job's identity."""

STACKS_TIMEOUT_S = 60.0
"""For all ranks of all nodes: a program that hangs waits, and so does its end."""

_SHAPE_VARIABLES = (
    "SLURM_NNODES",
    "SLURM_JOB_NUM_NODES",
    "SLURM_NTASKS",
    "SLURM_NPROCS",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_TASKS_PER_NODE",
    "SLURM_NODELIST",
    "SLURM_JOB_NODELIST",
    "SLURM_JOB_CPUS_PER_NODE",
)
"""They describe the allocation as it began; after nodes were given back they would mislead a step's srun."""


@dataclass(slots=True)
class AllocatedMachine:
    """The nodes of the allocation that this process is in, or those of a component of a heterogeneous job.

    `environ` is what Slurm says of them, `het_group` the component's number.
    """

    allocation: Allocation
    settings: Settings
    plan: Path | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    het_group: int | None = None

    @property
    def nodes(self) -> NodeSet:
        """The nodes as they were allocated."""
        return self.allocation.nodes

    @property
    def batch_node(self) -> str:
        """The node that this process runs on, or the first one when it runs outside of them (salloc)."""
        return self.allocation.node or next(iter(self.nodes))

    def simulated(self) -> tuple[str, ...]:
        """In a lab, the nodes."""
        return ("nodes",) if LAB_NODE.exists() else ()

    def vet(self, protocol: vet.Protocol) -> vet.Verdict:
        """Vet every node in one step."""
        return vet.vet_nodes(self.nodes, protocol, least_s=self.settings.vet.timeout_s)

    def give_back(self, nodes: NodeSet) -> NodeSet:
        """Shrink the job once; the batch node stays. A Slurm that refuses leaves the job as it was."""
        freed = nodes - NodeSet(self.batch_node)
        if not freed:
            return freed
        try:
            with tempfile.TemporaryDirectory() as scratch:  # scontrol leaves two resize scripts where it runs
                scontrol.shrink(SystemRunner(cwd=Path(scratch)), self.allocation.job, self.nodes - freed)
        except PioletError as error:
            say(f"{freed} could not be given back and stays idle: {error.what}")
            return NodeSet()
        return freed

    def staged(self, used: NodeSet, copy: Copy) -> AbstractContextManager[Outcome]:
        """Have a copy on each node of `used` inside the block, held by a step that shares the nodes."""
        from piolet.data.staging import stage  # noqa: PLC0415 - needs a package that other runs do without

        return stage.staged(stage.Request(copy.source, copy.target, used, keep=False), self._runner({}))

    def start_recorder(self, used: NodeSet, logbook: Path) -> Process:
        """Start one recorder a node, and another that stands by, in a step that shares the nodes with the program's."""
        argv = recorders_argv(logbook, used, self._gpus_per_node, extra=self._component)
        return self._runner({}).start(argv, stdout=DEVNULL, new_session=True)

    def collect_stacks(self, used: NodeSet, directory: Path) -> None:
        """Write the stacks of all ranks in a step that shares the nodes with the program's."""
        directory.mkdir(exist_ok=True)
        step = srun.Step(
            name="stacks",
            nodes=len(used),
            ntasks=len(used),
            ntasks_per_node=1,
            nodelist=used,
            overlap=True,
            output=f"{directory}/%N.txt",
            extra=("--kill-on-bad-exit=0", *self._component),
        )
        argv = srun.argv(step, [sys.executable, "-P", "-m", "piolet.launch.stacks", str(self.allocation.job)])
        self._runner({}).run(argv, timeout=STACKS_TIMEOUT_S)

    def run(
        self, used: NodeSet, request: RunRequest, variables: Mapping[str, str], reasons: Sequence[Reason] = ()
    ) -> Ended:
        """Run the program on `used`, in its container if there is a plan."""
        step = srun.Step(
            name=request.job_name,
            nodes=len(used),
            ntasks=request.ranks,
            ntasks_per_node=request.tasks_per_node,
            cpus_per_task=self._cpus_per_task(request),
            nodelist=used,
            gpus_per_node=self._gpus_per_node,
            environment=str(self.plan or ""),
            kill_on_bad_exit=True,
            extra=self._component,
        )
        runner = self._runner({**self._meeting_point(used, request.ranks), **variables})
        name = variables.get(metrics.VARIABLE)
        look = output.Steps(metrics.address(name)) if name else None
        doom = Doom(request.abort_on) if request.abort_on else None
        return program.run_step(srun.argv(step, request.command), runner, look, doom, reasons)

    def ended_as(self) -> str:
        """Return what Slurm says of the job, or TIMEOUT if its time is over."""
        try:
            job = jobs.find(SystemRunner(), self.allocation.job)
        except PioletError:
            return "CANCELLED"
        if job.state.finished:
            return str(job.state)
        if job.start_ns is None or job.time_limit_s is None:
            return "CANCELLED"
        return "TIMEOUT" if time.time_ns() / 1e9 >= job.start_ns / 1e9 + job.time_limit_s else "CANCELLED"

    def submit_again(self, request: RunRequest, bad: NodeSet) -> str:
        """Submit a job as this one is, as Slurm tells it: tried again, after a delay that doubles, or going on."""
        job = jobs.find(SystemRunner(), self.allocation.job)
        limited = job.time_limit_s is not None and math.isfinite(job.time_limit_s)
        again = replace(
            request,
            partition=self.allocation.partition,
            account=os.environ.get("SLURM_JOB_ACCOUNT", ""),
            time_limit=str(math.ceil((job.time_limit_s or 0) / 60)) if limited else "",
            name=job.name,
            exclude=str(NodeSet(request.exclude) | bad),
            restarts=request.restarts - bool(bad),
            chain=request.chain - (not bad),
            attempt=request.attempt + 1 if bad else 1,
            previous_job=str(self.allocation.job),
        )
        script = batch.script(
            again,
            plan=self.plan,
            gpus_per_node=len(self.allocation.job_gpus or ()),
            output=layout.root(self.settings) / (self.settings.cluster or self.allocation.cluster) / "%j.log",
            delay_s=self.settings.run.restart_delay_s * 2 ** (request.attempt - 1) if bad else 0,
        )
        return str(sbatch.submit(script, runner=SystemRunner(allocations.outside(os.environ), speech={})).job)

    @property
    def _gpus_per_node(self) -> int | None:
        """Every step asks for all GPUs of the job: an exclusive job's steps get none by default."""
        if self.allocation.job_gpus or self.het_group is None:
            return len(self.allocation.job_gpus or ()) or None
        count = self.environ.get("SLURM_GPUS_PER_NODE", "").rpartition(":")[2]
        return int(count) if count.isdigit() else None

    @property
    def _component(self) -> tuple[str, ...]:
        """The option by which a step is one of this component; without it, of the first."""
        return () if self.het_group is None else (f"--het-group={self.het_group}",)

    def _cpus_per_task(self, request: RunRequest) -> int | None:
        """Share a node's CPUs among its tasks; Slurm would give each task one."""
        cpus = self.environ.get("SLURM_CPUS_ON_NODE") or self.environ.get("SLURM_JOB_CPUS_PER_NODE", "")
        counts = [int(count) for count in re.findall(r"(?:^|,)(\d+)", cpus)]  # such as 8(x2),4
        return max(min(counts) // request.tasks_per_node, 1) if counts else None

    def _runner(self, variables: Mapping[str, str]) -> SystemRunner:
        return SystemRunner(dict.fromkeys(_SHAPE_VARIABLES) | dict(variables))

    def _meeting_point(self, used: NodeSet, ranks: int) -> Mapping[str, str]:
        """Return where ranks meet: the address of the first node, and a port of this job's own."""
        first = next(iter(used))
        node = scontrol.node_records(SystemRunner(), NodeSet(first))[0]
        identity = f"{self.allocation.cluster}/{self.allocation.job}/{time.time_ns()}"
        port = FIRST_PORT + zlib.crc32(identity.encode()) % PORTS
        return {"MASTER_ADDR": node.address or first, "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
