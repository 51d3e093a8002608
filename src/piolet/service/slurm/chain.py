"""The successor of a job: submitted when the job begins, hurried when a node is in trouble, kept off bad nodes."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import PioletError
from piolet.core.log import logger
from piolet.core.nodeset import NodeSet
from piolet.core.run import Runner, SystemRunner
from piolet.tools.slurm import allocation as allocations
from piolet.tools.slurm import sbatch, scontrol, sinfo

NODES_PERIOD_S = 60.0
"""How often Slurm is asked about the job's nodes, and again to take a successor that it refused."""


@dataclass(slots=True)
class Chain:
    """The job `job` on `nodes`, and the one that follows it with the same script."""

    job: int
    nodes: NodeSet
    script: Path
    begin_minutes: int
    runner: Runner
    successor: int | None = None
    hurried: bool = False
    asked_s: float = float("-inf")

    def tend(self) -> None:
        """See to it that there is a successor, and that it begins now if the job's nodes are to be left.

        Slurm is asked at most once a period; what it refuses is told and asked again.
        """
        if time.monotonic() - self.asked_s < NODES_PERIOD_S:
            return
        self.asked_s = time.monotonic()
        try:
            if self.successor is None:
                self.successor = self._submitted()
            elif not self.hurried:
                self._hurry_from_trouble()
        except PioletError as error:
            logger("service").warning("slurm refused", job=self.job, reason=error.what)

    def avoid(self, bad: NodeSet) -> None:
        """Keep the successor off `bad` nodes."""
        if bad and self.successor is not None:
            try:
                scontrol.exclude(self.runner, self.successor, bad)
            except PioletError as error:
                logger("service").warning("slurm refused", job=self.successor, reason=error.what)

    def _submitted(self) -> int:
        """After so many minutes of this job, or when it ends in whatever way, whichever is first."""
        after = f"--dependency=after:{self.job}+{self.begin_minutes}?afterany:{self.job}"
        outside = SystemRunner(allocations.outside(os.environ), speech={})
        found = sbatch.submit(self.script, chosen=[after], runner=outside).job
        logger("service").info("successor submitted", job=self.job, successor=found)
        return found

    def _hurry_from_trouble(self) -> None:
        trouble = [node for node in sinfo.nodes(self.runner, chosen=self.nodes) if not node.state.usable]
        if trouble and self.successor is not None:
            scontrol.unblock(self.runner, self.successor)
            self.hurried = True
            logger("service").warning("leaving", node=trouble[0].name, state=str(trouble[0].state))
