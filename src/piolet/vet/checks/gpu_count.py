"""Every GPU that was granted is there and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from piolet.core.nouns import Status
from piolet.vet import gpus
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.gpus import Gpus


@dataclass(frozen=True, slots=True)
class Parameters:
    """`expected`: how many GPUs must answer; left out, as many as Slurm granted (without Slurm: as are on the bus)."""

    expected: Annotated[int, Ge(0)] | None = None


def observe(parameters: Parameters, context: Context) -> Gpus[bool]:  # noqa: ARG001 - the interface of checks
    """Ask every allocated GPU for its temperature, which all of them have."""
    return gpus.observe(context, gpus.answers)


def judge(observation: Gpus[bool], parameters: Parameters) -> Judgement:
    """Fail on fewer answering GPUs than expected; more are other jobs' on a shared node."""
    expected = observation.expected if parameters.expected is None else parameters.expected
    count = len(observation.answering)
    if expected is None:
        return Judgement(
            Status.UNKNOWN,
            "Slurm granted no GPU to this step",
            count,
            unit="GPUs",
            remedy="ask for GPUs (--gpus-per-node=4), or set `expected` of this check",
        )
    if count >= expected:
        return Judgement(Status.PASS, f"{count} GPUs answer", count, expected, "GPUs")
    why = "; ".join(f"{each.name}: {each.lost}" for each in observation.lost) or observation.absent
    return Judgement(
        Status.FAIL,
        f"{count} of {expected} GPUs answer" + (f" ({why})" if why else ""),
        count,
        expected,
        "GPUs",
        remedy="tell the operators: a GPU has left the bus, or the driver does not run",
    )


CHECK = Check(
    name="gpu_count",
    version=1,
    summary="every GPU that was granted is there and answers",
    source="the allocation itself: SLURM_STEP_GPUS, SLURM_JOB_GPUS; without Slurm the PCI bus",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    light=True,
)
