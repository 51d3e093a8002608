"""The batch job that moves data: pure, from a transfer to a script."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import Refused, UsageError
from piolet.tools.slurm import sbatch


@dataclass(frozen=True, slots=True)
class Transfer:
    """What is moved where; `keep` leaves the source."""

    source: Path
    target: Path
    keep: bool = False


def script(
    transfer: Transfer, *, partition: str = "", account: str = "", time_limit: str = "", after: Sequence[int] = ()
) -> str:
    """Return the batch script: one task on one node, which moves, and fails if anything is not as it should be.

    Raises:
        UsageError: there is nothing to move, unless a job before it may still make it.
        Refused: the target is there already.
    """
    if not after and not transfer.source.exists():
        raise UsageError("there is nothing to move", where=str(transfer.source), remedy="check the name of the source")
    if transfer.target.exists():
        raise Refused(
            "the target is there already", where=str(transfer.target), remedy="choose another name, or delete it"
        )
    request = sbatch.Request(
        nodes=1,
        name="piolet-move",
        partition=partition,
        account=account,
        time_limit=time_limit,
        ntasks_per_node=1,
        output=str(log_of("%j")),
        chdir="/",
        requeue=True,
        extra=tuple(after_options(after)),
    )
    words = [sys.executable, "-m", "piolet", "data", "move", "--here", *(["--keep"] if transfer.keep else [])]
    command = shlex.join([*words, str(transfer.source), str(transfer.target)])
    return sbatch.script(sbatch.options(request), f"exec {command}")


def after_options(jobs: Sequence[int]) -> list[str]:
    """Return the options that let a job begin when all `jobs` have succeeded, and end it when one has not."""
    return [f"--dependency=afterok:{':'.join(map(str, jobs))}", "--kill-on-invalid-dep=yes"] if jobs else []


def log_of(job: int | str) -> Path:
    """Return where a transfer job writes: in the directory from which it was submitted."""
    return Path.cwd() / f"piolet-move-{job}.log"
