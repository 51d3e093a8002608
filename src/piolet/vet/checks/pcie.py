"""The PCIe links of the GPUs run at full generation and width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pynvml
from annotated_types import Ge

from piolet.core.nouns import Status
from piolet.tools import nvml
from piolet.vet import gpus
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.gpus import Gpus


@dataclass(frozen=True, slots=True)
class Parameters:
    """`generation`, `width`: what each link must have at least; left out, what GPU and slot can do together.

    The generation of a GPU that saves power is judged only if `generation` is given: the link slows down with it.
    """

    generation: Annotated[int, Ge(1)] | None = None
    width: Annotated[int, Ge(1)] | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """The link of one GPU, now and at most; `performance_state` is 0 for full performance, None if not told."""

    generation: int
    max_generation: int
    width: int
    max_width: int
    performance_state: int | None = 0

    @property
    def saves_power(self) -> bool:
        """Tell whether the GPU has left full performance, for which its link may slow down."""
        return bool(self.performance_state)


def observe(parameters: Parameters, context: Context) -> Gpus[Link]:  # noqa: ARG001 - the interface of checks
    """Read the link of each GPU."""
    return gpus.observe(context, _read)


def judge(observation: Gpus[Link], parameters: Parameters) -> Judgement:
    """Fail on the first GPU whose link is narrower or slower than it must be."""
    stop = gpus.nothing_to_judge(observation) or gpus.not_supported(
        observation, "the PCIe link", "leave this check out for virtual GPUs, which do not tell it"
    )
    if stop:
        return stop
    for name, link in observation.answering:
        width = parameters.width or link.max_width
        if link.width < width:
            return _failed(f"{name}: {link.width} of {width} PCIe lanes", link.width, width, "lanes")
        generation = parameters.generation or (0 if link.saves_power else link.max_generation)
        if link.generation < generation:
            reason = f"{name}: PCIe generation {link.generation} instead of {generation}"
            return _failed(reason, link.generation, generation, "generation")
    idle = [name for name, link in observation.answering if link.saves_power and parameters.generation is None]
    passed_over = f"; not the generation of {', '.join(idle)}, which saves power" if idle else ""
    return Judgement(Status.PASS, f"the PCIe links run as they must{passed_over}")


def _failed(reason: str, value: int, least: int, unit: str) -> Judgement:
    remedy = "tell the operators: reseat the GPU or its riser, or reset the link"
    return Judgement(Status.FAIL, reason, value, least, unit, remedy)


def _read(handle: Any) -> Link | None:  # noqa: ANN401 - opaque
    generation = nvml.supported(pynvml.nvmlDeviceGetCurrPcieLinkGeneration, handle)
    max_generation = nvml.supported(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, handle)
    width = nvml.supported(pynvml.nvmlDeviceGetCurrPcieLinkWidth, handle)
    max_width = nvml.supported(pynvml.nvmlDeviceGetMaxPcieLinkWidth, handle)
    if None in (generation, max_generation, width, max_width):
        return None
    state = nvml.optional(pynvml.nvmlDeviceGetPerformanceState, handle)
    return Link(generation, max_generation, width, max_width, state)


CHECK = Check(
    name="pcie",
    version=1,
    summary="the PCIe links of the GPUs run at full generation and width",
    source="NVML: the maximum of GPU and slot together; the generation falls when a GPU saves power (nvidia-smi)",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    light=True,
)
