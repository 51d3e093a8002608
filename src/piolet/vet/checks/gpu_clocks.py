"""The clocks are not set or held below what the GPU can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pynvml
from annotated_types import Gt, Le

from piolet.core.nouns import Status
from piolet.tools import nvml
from piolet.vet import gpus
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.gpus import Gpus


@dataclass(frozen=True, slots=True)
class Parameters:
    """Fractions, 0..1.

    `min_application_fraction`: the SM clock that is set for applications, of the GPU's default. `min_sm_fraction`: the
    SM clock of this moment, of the maximum; left out, it is not judged, since an idle GPU lowers it.
    """

    min_application_fraction: Annotated[float, Gt(0), Le(1)] = 1.0
    min_sm_fraction: Annotated[float, Gt(0), Le(1)] | None = None


@dataclass(frozen=True, slots=True)
class Clocks:
    """The SM clocks of one GPU in MHz; None where it does not have them."""

    application_mhz: int | None
    default_mhz: int | None
    sm_mhz: int | None
    sm_max_mhz: int | None


def observe(parameters: Parameters, context: Context) -> Gpus[Clocks]:  # noqa: ARG001 - the interface of checks
    """Read the clocks of each GPU."""
    return gpus.observe(context, _read)


def judge(observation: Gpus[Clocks], parameters: Parameters) -> Judgement:
    """Fail on the first GPU whose clock is below its fraction; unknown if a clock that is judged is not told."""
    nothing = gpus.nothing_to_judge(observation)
    if nothing:
        return nothing
    judged = [
        found
        for name, clocks in observation.answering
        for found in _judged(name, clocks, parameters)
        if found.status is not Status.PASS
    ]
    failed = [found for found in judged if found.status is Status.FAIL]
    return next(iter(failed or judged), Judgement(Status.PASS, "the clocks of all GPUs are as high as they must be"))


def _judged(name: str, clocks: Clocks, parameters: Parameters) -> list[Judgement]:
    wanted = [
        ("application clock", clocks.application_mhz, clocks.default_mhz, parameters.min_application_fraction),
        ("SM clock", clocks.sm_mhz, clocks.sm_max_mhz, parameters.min_sm_fraction),
    ]
    return [_compared(f"{name}: {what}", at, of, least) for what, at, of, least in wanted if least is not None]


def _compared(what: str, at_mhz: int | None, of_mhz: int | None, least: float) -> Judgement:
    if at_mhz is None or not of_mhz:
        remedy = "leave this check out for GPUs that do not tell it, or judge the other clock"
        return Judgement(Status.UNKNOWN, f"{what} is not known", remedy=remedy)
    status = Status.PASS if at_mhz >= least * of_mhz else Status.FAIL
    remedy = (
        "" if status is Status.PASS else "reset the clocks (nvidia-smi -rac, -rgc); if that fails, tell the operators"
    )
    return Judgement(status, f"{what} is {at_mhz} of {of_mhz} MHz", at_mhz, round(least * of_mhz, 1), "MHz", remedy)


def _read(handle: Any) -> Clocks:  # noqa: ANN401 - opaque
    calls = (
        pynvml.nvmlDeviceGetApplicationsClock,
        pynvml.nvmlDeviceGetDefaultApplicationsClock,
        pynvml.nvmlDeviceGetClockInfo,
        pynvml.nvmlDeviceGetMaxClockInfo,
    )
    return Clocks(*(nvml.supported(call, handle, pynvml.NVML_CLOCK_SM) for call in calls))


CHECK = Check(
    name="gpu_clocks",
    version=1,
    summary="the clocks are not set or held below what the GPU can do",
    source="the GPU itself: its default application clock and its maximum",
    parameters=Parameters,
    observe=observe,
    judge=judge,
)
