"""Idle GPUs are cool: a warm one is badly cooled, or not idle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pynvml
from annotated_types import Gt

from piolet.core.nouns import Status
from piolet.tools import nvml
from piolet.vet import gpus
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.gpus import Gpus


@dataclass(frozen=True, slots=True)
class Parameters:
    """`below_celsius`: each GPU must be cooler than this. There is no default: it depends on the cooling."""

    below_celsius: Annotated[float, Gt(0)]


def observe(parameters: Parameters, context: Context) -> Gpus[int]:  # noqa: ARG001 - the interface of checks
    """Read the temperature of each GPU in Celsius."""
    return gpus.observe(
        context, lambda handle: nvml.optional(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)
    )


def judge(observation: Gpus[int], parameters: Parameters) -> Judgement:
    """Fail on the hottest GPU if it is not cooler than allowed."""
    stop = gpus.nothing_to_judge(observation) or gpus.not_supported(
        observation, "the temperature", "leave this check out for GPUs that do not tell it"
    )
    if stop:
        return stop
    name, hottest = max(observation.answering, key=lambda pair: pair[1])
    status = Status.PASS if hottest < parameters.below_celsius else Status.FAIL
    remedy = "" if status is Status.PASS else "look at cooling and at what runs on this GPU; tell the operators"
    return Judgement(status, f"{name} has {hottest} °C", hottest, parameters.below_celsius, "°C", remedy)


CHECK = Check(
    name="gpu_temperature",
    version=1,
    summary="idle GPUs are cool",
    source="the site's cooling: 30 °C is in use on liquid-cooled nodes, air-cooled ones idle at 30 to 45 °C",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    light=True,
)
