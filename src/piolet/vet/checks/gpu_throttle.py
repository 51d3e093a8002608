"""Nothing slows the GPUs down: no heat, no power brake, no hardware slowdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pynvml

from piolet.core.nouns import Status
from piolet.tools import nvml
from piolet.vet import gpus
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.gpus import Gpus

Reason = Literal[
    "idle",
    "application_clocks",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal",
    "hw_thermal",
    "hw_power_brake",
    "display_clocks",
]

REASONS: dict[int, Reason] = {
    pynvml.nvmlClocksEventReasonGpuIdle: "idle",
    pynvml.nvmlClocksEventReasonApplicationsClocksSetting: "application_clocks",
    pynvml.nvmlClocksEventReasonSwPowerCap: "sw_power_cap",
    pynvml.nvmlClocksThrottleReasonHwSlowdown: "hw_slowdown",
    pynvml.nvmlClocksEventReasonSyncBoost: "sync_boost",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "sw_thermal",
    pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "hw_thermal",
    pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "hw_power_brake",
    pynvml.nvmlClocksEventReasonDisplayClockSetting: "display_clocks",
}
"""NVML's bits and what protocols call them. A bit that is not among them is never allowed."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """`allowed`: reasons for a lower clock that are no fault.

    There are idle, application_clocks, display_clocks, sync_boost, sw_power_cap, sw_thermal, hw_slowdown, hw_thermal
    and hw_power_brake.
    """

    allowed: tuple[Reason, ...] = ("idle", "sw_power_cap")


def observe(parameters: Parameters, context: Context) -> Gpus[int]:  # noqa: ARG001 - the interface of checks
    """Read the clocks-event reasons of each GPU, a mask."""
    return gpus.observe(
        context, lambda handle: nvml.supported(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    )


def judge(observation: Gpus[int], parameters: Parameters) -> Judgement:
    """Fail on the first GPU with a reason that is not allowed."""
    stop = gpus.nothing_to_judge(observation) or gpus.not_supported(
        observation, "why it slows down", "leave this check out for GPUs that do not tell it"
    )
    if stop:
        return stop
    for name, mask in observation.answering:
        wrong = [reason for reason in reasons(mask) if reason not in parameters.allowed]
        if wrong:
            remedy = "look at cooling and power of the node; tell the operators"
            said = ", ".join(wrong)
            return Judgement(
                Status.FAIL, f"{name} is slowed down: {said}", said, ", ".join(parameters.allowed), "", remedy
            )
    return Judgement(Status.PASS, "nothing slows the GPUs down")


def reasons(mask: int) -> list[str]:
    """Return the names of the bits of `mask`; one that has no name is given as a number."""
    bits = [1 << place for place in range(mask.bit_length()) if mask >> place & 1]
    return [REASONS.get(bit, f"{bit:#x}") for bit in bits]


CHECK = Check(
    name="gpu_throttle",
    version=1,
    summary="nothing slows the GPUs down but idleness and the power limit",
    source="NVML, clocks-event reasons: the two that are allowed belong to normal work, the hardware's never do",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    light=True,
)
