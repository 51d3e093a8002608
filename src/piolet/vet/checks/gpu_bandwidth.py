"""Data go to the GPUs, back, and within their memory as fast as they must.

Runs on the allocated GPUs; where Slurm granted none, the host copies to itself. On a GPU it was never run by the tests.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Annotated

from annotated_types import Ge, Gt, Le

from piolet.core.nouns import Status
from piolet.vet import arrays
from piolet.vet.arrays import Backend
from piolet.vet.check import Check, Context, Judgement

WAYS = ("to_device", "to_host", "on_device")
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Parameters:
    """What each GPU must reach at least, in 10^9 bytes per second; what is left out is only told.

    `min_to_device_gb_per_s`, `min_to_host_gb_per_s`: from and to pinned memory of the host (published: A100 21, H100
    48). `min_on_device_gb_per_s`: what is read and written, together. `mib`: each copy; the median of `repetitions`.
    """

    min_to_device_gb_per_s: Annotated[float, Gt(0)] | None = None
    min_to_host_gb_per_s: Annotated[float, Gt(0)] | None = None
    min_on_device_gb_per_s: Annotated[float, Gt(0)] | None = None
    mib: Annotated[int, Ge(1), Le(16384)] = 256
    repetitions: Annotated[int, Ge(3)] = 7


@dataclass(frozen=True, slots=True)
class Device:
    """What one device did: its rate each way, in 10^9 bytes per second."""

    name: str
    gb_per_s: Mapping[str, float]


def observe(parameters: Parameters, context: Context) -> tuple[Device, ...]:
    """Copy on each device, one after the other; ImportError if no library here can."""
    return tuple(measure(backend, parameters) for backend in arrays.allocated(context.environ))


def measure(backend: Backend, parameters: Parameters) -> Device:
    """Copy each way, after a copy that does not count; on the device each byte is read and written."""
    rates = {}
    for way, copy in zip(WAYS, backend.copies(parameters.mib * _MIB), strict=True):
        copy()
        durations_s = []
        for _ in range(parameters.repetitions):
            started_s = time.perf_counter()
            copy()
            durations_s.append(time.perf_counter() - started_s)
        moved = parameters.mib * _MIB * (2 if way == "on_device" else 1)
        rates[way] = moved / median(durations_s) / 1e9
    return Device(backend.name, rates)


def judge(observation: tuple[Device, ...], parameters: Parameters) -> Judgement:
    """Fail on the first way in which a device is too slow; the value is the slowest between host and device."""
    for device in observation:
        for way in WAYS:
            least, rate = getattr(parameters, f"min_{way}_gb_per_s"), device.gb_per_s[way]
            if least is not None and rate < least:
                reason = f"{device.name}: {rate:.3g} GB/s {way.replace('_', ' ')}"
                remedy = "look at pcie and gpu_clocks, and at what else runs on the node"
                return Judgement(Status.FAIL, reason, round(rate, 3), least, "GB/s", remedy)
    slowest = min(observation, key=_between)
    told = ", ".join(f"{slowest.gb_per_s[way]:.3g} {way.replace('_', ' ')}" for way in WAYS)
    return Judgement(Status.PASS, f"{slowest.name}: {told} (GB/s)", round(_between(slowest), 3), unit="GB/s")


def _between(device: Device) -> float:
    return min(device.gb_per_s["to_device"], device.gb_per_s["to_host"])


CHECK = Check(
    name="gpu_bandwidth",
    version=1,
    summary="data go to the GPUs, back and within their memory as fast as they must",
    source="the site or the peers; between host and device A100 21, H100 48 GB/s are published figures",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    better="higher",
    quiet=True,
    typical_s=5.0,
    timeout_s=60.0,
)
