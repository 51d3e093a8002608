"""This machine alone, without Slurm: one recorder, one vetting, and the ranks as processes.

A rank is told its place by RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun tells it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from piolet import record, vet
from piolet.core.errors import UsageError
from piolet.core.native import native
from piolet.core.nodeset import NodeSet
from piolet.core.run import Process, SystemRunner, end, exit_status
from piolet.core.sockets import free_port
from piolet.lab import gpus
from piolet.launch.copies import Copy
from piolet.launch.program import GRACE_S, Ended, Failure, Reason
from piolet.launch.request import RunRequest

if TYPE_CHECKING:
    from piolet.data.staging.stage import Outcome

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class LocalMachine:
    """This machine as the one node of a run; `variables` are what every process of the run gets.

    `vetting_s` are the seconds that a stage of vetting gets at least.
    """

    plan: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    vetting_s: float = vet.LEAST_S

    @property
    def nodes(self) -> NodeSet:
        """This machine."""
        return NodeSet(self.batch_node)

    @property
    def batch_node(self) -> str:
        """This machine's name."""
        return socket.gethostname()

    def simulated(self) -> tuple[str, ...]:
        """The ranks share one machine, so the nodes asked for are simulated."""
        return ("nodes",)

    def vet(self, protocol: vet.Protocol) -> vet.Verdict:
        """Vet this machine."""
        return vet.vet_here(protocol, environ=os.environ | dict(self.variables), least_s=self.vetting_s)

    def give_back(self, nodes: NodeSet) -> NodeSet:  # noqa: ARG002 - the interface of Machine
        """There is nothing to give back."""
        return NodeSet()

    def staged(self, used: NodeSet, copy: Copy) -> AbstractContextManager[Outcome]:  # noqa: ARG002 - as above
        """Refuse: what is on this machine is where the program finds it."""
        raise UsageError("--stage is for jobs", where=f"--stage {copy}", remedy="leave it out with --local")

    def start_recorder(self, used: NodeSet, logbook: Path) -> Process:  # noqa: ARG002 - the interface of Machine
        """Start the recorder of this machine."""
        return SystemRunner(self.variables).start(record.agent_argv(logbook), new_session=True)

    def run(
        self,
        used: NodeSet,  # noqa: ARG002 - the interface of Machine
        request: RunRequest,
        variables: Mapping[str, str],
        reasons: Sequence[Reason] = (),  # noqa: ARG002 - the interface of Machine; start refuses what gives reasons
    ) -> Ended:
        """Run all ranks here; the first that fails ends the others."""
        port = free_port()
        shared = {**self.variables, **variables}
        ranks: list[Process] = []
        try:
            for rank in range(request.ranks):
                runner = SystemRunner(shared | rank_variables(rank, request.ranks, port=port))
                ranks.append(runner.start([*self._entered(), *request.command], new_session=True))
            return _first_end(ranks, self.batch_node)
        finally:
            _end_all(ranks)

    def collect_stacks(self, used: NodeSet, directory: Path) -> None:
        """There is nobody to ask for it."""

    def ended_as(self) -> str:
        """There is no time limit, and nobody but the user to end it."""
        return "CANCELLED"

    def submit_again(self, request: RunRequest, bad: NodeSet) -> str:  # noqa: ARG002 - the interface of Machine
        """There are no jobs."""
        return ""

    def _entered(self) -> list[str]:
        return [str(native("piolet-enter")), str(self.plan), "--"] if self.plan else []


def rank_variables(rank: int, size: int, *, port: int) -> dict[str, str]:
    """Return the variables that tell a rank its place."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def simulated_gpus(directory: Path, wanted: str) -> dict[str, str]:
    """Make simulated GPUs as `wanted` says (MODEL:COUNT), with their state in `directory`.

    Returns the variables that every process of the run needs to see them.
    """
    model, _, count = wanted.partition(":")
    if not count.isdigit() or int(count) < 1:
        raise UsageError(f'--simulate cannot be "{wanted}"', remedy="write MODEL:COUNT, as in --simulate h100:4")
    library = native("libnvidia-ml.so.1")
    gpus.write_inventory(directory, node=socket.gethostname(), count=int(count), model=model)
    return {
        "LD_LIBRARY_PATH": ":".join([str(library.parent), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]),
        "PIOLET_GPUSIM": str(directory),
        "PIOLET_RECORD_KERNEL_LOG": str(directory.parent / "kmsg"),
    }


def _first_end(ranks: Sequence[Process], node: str) -> Ended:
    """Wait until all ranks have ended well, or one has not."""
    while True:
        codes = [process.poll() for process in ranks]
        for rank, code in enumerate(codes):
            if code:
                status = exit_status(code)
                what = f"Exited with exit code {code}" if code > 0 else f"ended by signal {-code}"
                return Ended(status, Failure(node, rank, what))
        if None not in codes:
            return Ended(0)
        time.sleep(_POLL_S)


def _end_all(ranks: Sequence[Process]) -> None:
    """End what is left, all at once: a program may need its whole grace."""
    for process in ranks:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + GRACE_S
    for process in ranks:
        end(process, max(deadline - time.monotonic(), 0))
