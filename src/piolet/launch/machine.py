"""What the conductor asks of the place it runs on: a Slurm allocation, or this machine alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from piolet.core.nodeset import NodeSet
from piolet.core.run import Process
from piolet.launch.copies import Copy
from piolet.launch.program import Ended, Reason
from piolet.launch.request import RunRequest
from piolet.vet import Protocol as VettingProtocol
from piolet.vet import Verdict

if TYPE_CHECKING:
    from piolet.data.staging.stage import Outcome


class Machine(Protocol):
    """Nodes that are held for one run."""

    @property
    def nodes(self) -> NodeSet:
        """The nodes that are held."""
        ...

    @property
    def batch_node(self) -> str:
        """The node that the conductor runs on; it cannot be given back."""
        ...

    def simulated(self) -> tuple[str, ...]:
        """Return what is simulated here, such as ("nodes",), for the logbook and the report."""
        ...

    def vet(self, protocol: VettingProtocol) -> Verdict:
        """Run `protocol` on every node."""
        ...

    def give_back(self, nodes: NodeSet) -> NodeSet:
        """Free `nodes`, as far as that is possible, and return those that were freed."""
        ...

    def staged(self, used: NodeSet, copy: Copy) -> AbstractContextManager[Outcome]:
        """Have a copy on each node of `used` inside the block."""
        ...

    def start_recorder(self, used: NodeSet, logbook: Path) -> Process:
        """Start one recorder on each node of `used`; SIGUSR1 ends it in good order."""
        ...

    def run(
        self, used: NodeSet, request: RunRequest, variables: Mapping[str, str], reasons: Sequence[Reason] = ()
    ) -> Ended:
        """Run the program on `used` to its end, with `variables` added to its environment; `reasons` may end it."""
        ...

    def collect_stacks(self, used: NodeSet, directory: Path) -> None:
        """Write what every process of the program does now into `directory`, one file a node."""
        ...

    def ended_as(self) -> str:
        """Return Slurm's word for why this process is being ended: TIMEOUT, PREEMPTED, NODE_FAIL; else CANCELLED."""
        ...

    def submit_again(self, request: RunRequest, bad: NodeSet) -> str:
        """Submit `request` once more and return the job; empty where there are no jobs.

        It is tried again without the nodes `bad`, after a delay; without any it goes on, the next of its chain.
        """
        ...
