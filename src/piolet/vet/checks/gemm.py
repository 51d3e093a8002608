"""Matrices are multiplied at the rate that they must be, and the same product comes out every time, bit for bit.

A device that computes wrongly now and then says nothing of it: only repeating finds it, and not always. Runs on the
allocated GPUs; where Slurm granted none, on the host.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Annotated

from annotated_types import Ge, Gt, Le

from piolet.core.nouns import Status
from piolet.vet import arrays
from piolet.vet.arrays import Backend
from piolet.vet.check import Check, Context, Judgement


@dataclass(frozen=True, slots=True)
class Parameters:
    """`min_tflop_per_s`: of each device, in float32; left out, compare the nodes by `criteria`.

    `size`: rows and columns of the matrices; `repetitions`: products, after one that does not count.
    """

    min_tflop_per_s: Annotated[float, Gt(0)] | None = None
    size: Annotated[int, Ge(64), Le(32768)] = 2048
    repetitions: Annotated[int, Ge(3)] = 5


@dataclass(frozen=True, slots=True)
class Device:
    """What one device did: seconds of each product, and how many products differ from the first."""

    name: str
    durations_s: tuple[float, ...]
    different: int


def observe(parameters: Parameters, context: Context) -> tuple[Device, ...]:
    """Multiply on each device, one after the other; ImportError if no library here can."""
    return tuple(measure(backend, parameters) for backend in arrays.allocated(context.environ))


def measure(backend: Backend, parameters: Parameters) -> Device:
    """Multiply the same matrices again and again."""
    left, right = backend.matrices(parameters.size)
    first = backend.multiply(left, right)
    durations_s, different = [], 0
    for _ in range(parameters.repetitions):
        started_s = time.perf_counter()
        product = backend.multiply(left, right)
        durations_s.append(time.perf_counter() - started_s)
        different += not backend.equal(first, product)
    return Device(backend.name, tuple(durations_s), different)


def judge(observation: tuple[Device, ...], parameters: Parameters) -> Judgement:
    """Fail on any product that differs, then on the slowest device."""
    for device in observation:
        if device.different:
            reason = f"{device.name}: {device.different} of {len(device.durations_s)} products differ from the first"
            remedy = "do not trust results of this node; tell the operators, who can run DCGM's diagnostics"
            return Judgement(Status.FAIL, reason, device.different, 0, "products", remedy)
    slowest = max(observation, key=lambda device: median(device.durations_s))
    rate = round(2 * parameters.size**3 / median(slowest.durations_s) / 1e12, 4)
    least = parameters.min_tflop_per_s
    reason = f"{slowest.name}: {rate:.3g} TFLOP/s, all products alike"
    if least is None or rate >= least:
        return Judgement(Status.PASS, reason, rate, least, "TFLOP/s")
    remedy = "look at gpu_throttle and gpu_clocks, and at what else runs on the node"
    return Judgement(Status.FAIL, reason, rate, least, "TFLOP/s", remedy)


CHECK = Check(
    name="gemm",
    version=1,
    summary="matrix products come at the right rate, and the same every time",
    source="the site, or the median of the job's own nodes; a product that differs is wrong once (silent corruption)",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    better="higher",
    quiet=True,
    typical_s=5.0,
)
