"""Bottleneck labels: rules as data, first match wins, each with the numbers that decided it.

Thresholds follow the guidance of the DCGM User Guide on profiling metrics (SM active below 0.5 is ineffective, DRAM
active reaches about 0.8) and published practice; docs/reference/score.md lists them. A value that was not measured
never satisfies a condition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from piolet.score.model import IDLE_RATIO, NOT_MEASURED, Bottleneck, Confidence, Label

Activity = Mapping[str, float | None]
"""Means of one GPU or of a job by name (see NAMES), ratios 0..1; None was not measured."""

NAMES = {
    "highest": "highest activity",
    "tensor": "tensor pipes",
    "sm": "SM active",
    "fp64": "FP64 pipe",
    "pcie": "PCIe",
    "dram": "DRAM active",
    "memory_lead": "memory ahead of compute by",
    "network": "busiest link",
    "host_stall": "host stalled on I/O",
    "engine": "engine active",
    "sm_pulse": "SM active p90 - p10",
    "host_load": "CPU or I/O load of the host",
}

_OF_GPUS = ("compute", "memory", "network", "sm", "engine", "tensor", "dram", "fp64", "pcie", "sm_pulse")
_OF_HOSTS = ("cpu_busy", "iowait", "io_pressure")

CPU_BUSY_HIGH = 0.7
IO_WAIT_HIGH = 0.1
NEAR = 0.1
"""A value within this share of its threshold makes the label less sure."""

THIN_COVERAGE = 0.5
FULL_COVERAGE = 0.9


@dataclass(frozen=True, slots=True)
class Condition:
    """`name` is at least `threshold`, or below it."""

    name: str
    threshold: float
    below: bool = False

    def holds(self, activity: Activity) -> bool:
        """Return whether the measured value satisfies this; False if there is none."""
        value = activity.get(self.name)
        return value is not None and (value < self.threshold) is self.below

    def near(self, activity: Activity) -> bool:
        """Return whether the value is so close to the threshold that noise could turn it."""
        value = activity.get(self.name)
        return value is not None and abs(value - self.threshold) <= NEAR * abs(self.threshold)


@dataclass(frozen=True, slots=True)
class Rule:
    """A label, the conditions that must all hold, what it means, and what to try next."""

    bottleneck: Bottleneck
    conditions: tuple[Condition, ...]
    meaning: str
    advice: str
    hypothesis: bool = False


def _at_least(name: str, threshold: float) -> Condition:
    return Condition(name, threshold)


def _below(name: str, threshold: float) -> Condition:
    return Condition(name, threshold, below=True)


RULES = (
    Rule(
        Bottleneck.IDLE,
        (_below("highest", IDLE_RATIO),),
        "The GPUs did nothing worth measuring.",
        "check that the program uses the GPU at all: device placement, CUDA_VISIBLE_DEVICES, ranks per node",
    ),
    Rule(
        Bottleneck.TENSOR_BOUND,
        (_at_least("tensor", 0.5), _at_least("sm", 0.6)),
        "The tensor cores are busy most of the time: the hardware is the limit.",
        "the tensor cores are the limit, as they should be; lower precision (FP8) is what is left",
    ),
    Rule(
        Bottleneck.TENSOR_ACTIVE,
        (_at_least("tensor", 0.15), _at_least("sm", 0.4)),
        "The tensor cores work, but not near their limit.",
        "larger matrices help: raise the batch or the sequence, fuse small operations (compile, flash attention)",
    ),
    Rule(
        Bottleneck.FP64_BOUND,
        (_at_least("fp64", 0.2), _at_least("sm", 0.5)),
        "Double-precision arithmetic is the limit.",
        "if the science allows it, move parts to FP32 or to FP64 tensor cores",
    ),
    Rule(
        Bottleneck.HOST_IO,
        (_at_least("pcie", 1e9), _below("sm", 0.3)),
        "The GPUs wait while data crosses from or to the host.",
        "keep data on the GPU: pin host memory, copy asynchronously, prefetch a batch ahead",
    ),
    Rule(
        Bottleneck.MEMORY_BOUND,
        (_at_least("dram", 0.5), _at_least("memory_lead", 0.0)),
        "The GPUs wait for their own memory more than for arithmetic.",
        "fuse element-wise operations and use lower precision to move fewer bytes per operation",
    ),
    Rule(
        Bottleneck.COMPUTE_BOUND,
        (_at_least("sm", 0.5), _below("tensor", 0.01)),
        "The GPUs compute without their tensor cores.",
        "turn on mixed precision (bf16) or TF32, so that the tensor cores do the matrix work",
    ),
    Rule(
        Bottleneck.NETWORK_BOUND,
        (_at_least("network", 0.4), _below("sm", 0.3), _below("host_stall", IO_WAIT_HIGH)),
        "The GPUs wait for data from one another.",
        "overlap communication with computation, use larger buckets, or shard less",
    ),
    Rule(
        Bottleneck.LAUNCH_BOUND,
        (_at_least("engine", 0.4), _below("sm", 0.25)),
        "The GPUs have work queued all the time, yet few of their processors run.",
        "many small kernels or waiting for peers: CUDA graphs or compilation, fewer synchronisations",
    ),
    Rule(
        Bottleneck.INPUT_BOUND,
        (_below("sm", 0.5), _at_least("sm_pulse", 0.3), _at_least("host_load", 1.0)),
        "The GPUs seem to wait in pulses for input data.",
        "the GPUs seem to wait for data: more loader workers, a packed data set, staging to local disk",
        hypothesis=True,
    ),
    Rule(
        Bottleneck.LOW_ACTIVITY,
        (),
        "The GPUs do little, and no single cause stands out.",
        "profile a few steps to see what the GPUs wait for; fewer GPUs may serve this job as well",
        hypothesis=True,
    ),
)


def activity(row: Mapping[str, Any], host: Mapping[str, Any]) -> dict[str, float | None]:
    """Return what labels look at from sums over GPU-seconds and the means of the host."""
    return {name: row[name] for name in _OF_GPUS} | {name: host.get(name) for name in _OF_HOSTS}


def label(activity: Activity, coverage_ratio: float) -> Label:
    """Return the first rule that matches; UNKNOWN if tensor and memory activity were not measured."""
    if activity.get("compute") is None or activity.get("memory") is None:
        return NOT_MEASURED
    known = dict(activity) | _derived(activity)
    rule = next(rule for rule in RULES if all(condition.holds(known) for condition in rule.conditions))
    confidence = _confidence(rule, known, coverage_ratio)
    return Label(rule.bottleneck, confidence, rule.meaning, _evidence(rule, known), rule.advice)


def trace(activity: Activity) -> list[tuple[Rule, list[tuple[str, bool]]]]:
    """Return every rule in order, with each of its conditions in words and whether it holds; for `explain`."""
    if activity.get("compute") is None or activity.get("memory") is None:
        return []
    known = dict(activity) | _derived(activity)
    return [(rule, [(_said(each, known), each.holds(known)) for each in rule.conditions]) for rule in RULES]


def _said(condition: Condition, activity: Activity) -> str:
    name, value = condition.name, activity.get(condition.name)
    sign = "<" if condition.below else ">="
    return f"{NAMES[name]} {_shown(name, value)} {sign} {_shown(name, condition.threshold)}"


def _derived(activity: Activity) -> dict[str, float | None]:
    io_wait = _highest(activity.get(name) for name in ("iowait", "io_pressure"))
    cpu_busy = activity.get("cpu_busy")
    return {
        "highest": _highest(activity.get(name) for name in ("engine", "sm", "tensor", "fp64", "dram")),
        "memory_lead": (activity["memory"] or 0.0) - (activity["compute"] or 0.0),
        "host_stall": io_wait,
        "host_load": _highest(
            (
                None if cpu_busy is None else cpu_busy / CPU_BUSY_HIGH,
                None if io_wait is None else io_wait / IO_WAIT_HIGH,
            )
        ),
    }


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _confidence(rule: Rule, activity: Activity, coverage_ratio: float) -> Confidence:
    if rule.hypothesis or coverage_ratio < THIN_COVERAGE:
        return Confidence.LOW
    near = any(condition.near(activity) for condition in rule.conditions)
    return Confidence.MEDIUM if near or coverage_ratio < FULL_COVERAGE else Confidence.HIGH


def _evidence(rule: Rule, activity: Activity) -> str:
    names = [condition.name for condition in rule.conditions] or ["sm", "tensor", "dram"]
    return ", ".join(f"{NAMES[name]} {_shown(name, activity.get(name))}" for name in names)


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "not measured"
    return f"{value / 1e9:.1f} GB/s" if name == "pcie" else f"{value:.2f}"
