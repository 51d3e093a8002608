"""The memory of the GPUs is free and no process of an earlier job is left on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import pynvml
from annotated_types import Ge, Le

from piolet.core.nouns import Status
from piolet.tools import nvml
from piolet.vet import gpus
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.gpus import Gpus


@dataclass(frozen=True, slots=True)
class Parameters:
    """`max_used_fraction`: of the device memory, 0..1; `allow_processes`: processes may be running on the GPUs."""

    max_used_fraction: Annotated[float, Ge(0), Le(1)] = 0.2
    allow_processes: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """One GPU: bytes in use and in all, and the processes that compute on it (their ids on this node)."""

    used_bytes: int
    total_bytes: int
    processes: tuple[int, ...] = ()

    @property
    def used_fraction(self) -> float:
        """The part in use, 0..1."""
        return self.used_bytes / self.total_bytes if self.total_bytes else 1.0


def observe(parameters: Parameters, context: Context) -> Gpus[Memory]:  # noqa: ARG001 - the interface of checks
    """Read memory in use and the processes on each GPU."""
    return gpus.observe(context, _read)


def judge(observation: Gpus[Memory], parameters: Parameters) -> Judgement:
    """Fail on the GPU with the most memory in use if that is too much, then on processes that are left."""
    stop = gpus.nothing_to_judge(observation) or gpus.not_supported(
        observation, "memory in use", "ask nvidia-smi on the node; a driver that hides memory cannot be vetted"
    )
    if stop:
        return stop
    name, fullest = max(observation.answering, key=lambda pair: pair[1].used_fraction)
    used, limit = round(fullest.used_fraction, 4), parameters.max_used_fraction
    said = f"{name}: {used:.0%} of its memory is in use"
    if used > limit:
        remedy = "an earlier job has left memory behind; tell the operators: the processes that hold it must end"
        return Judgement(Status.FAIL, said, used, limit, "fraction", remedy)
    left = [(name, memory.processes) for name, memory in observation.answering if memory.processes]
    if left and not parameters.allow_processes:
        name, processes = left[0]
        reason = f"{name}: left-over processes {', '.join(map(str, processes))}"
        remedy = "tell the operators: the epilog of an earlier job has not ended them"
        return Judgement(Status.FAIL, reason, len(processes), 0, "processes", remedy)
    return Judgement(Status.PASS, said, used, limit, "fraction")


def _read(handle: Any) -> Memory | None:  # noqa: ANN401 - opaque
    memory = nvml.optional(pynvml.nvmlDeviceGetMemoryInfo, handle)
    used = nvml.memory_used(handle)
    if memory is None or used is None:
        return None
    running = nvml.optional(pynvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    return Memory(used, memory.total, tuple(process.pid for process in running))


CHECK = Check(
    name="gpu_memory",
    version=1,
    summary="the memory of the GPUs is free and no process is left on them",
    source="0.2 is what published vetting protocols for training use; an idle driver holds under 2 % of 80 GB",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    light=True,
)
