"""The types of vetnode's protocols and the checks that they stand for here, so that those files run unchanged."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

PREFIX = "vetnode.evaluations."

TOP_LEVEL = ("scheduler", "pip")
"""Settings of vetnode that have no meaning here: Slurm is found by itself, and nothing is ever installed."""

_ALL_REDUCE = {
    "min_bandwidth": ("all_reduce", "min_gb_per_s"),
    "payload": ("all_reduce", "sizes_mib"),
    "warmup": ("all_reduce", "warmup"),
    "method": ("all_reduce", ""),
    "scheduler": ("all_reduce", ""),
}
_SCOPED = _ALL_REDUCE | {"topology": ("all_reduce", "scope")}

EQUIVALENTS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    f"{PREFIX}gpu_eval.GPUEval": {
        "max_temp": ("gpu_temperature", "below_celsius"),
        "max_used_memory": ("gpu_memory", "max_used_fraction"),
    },
    f"{PREFIX}cuda_eval.CUDAEval": {"cuda_home": ("gemm", "")},
    f"{PREFIX}env_var_eval.EnvVarEval": {"expected": ("environment", "expected")},
    f"{PREFIX}internet_access.InternetAccessEval": {
        "host": ("internet", "host"),
        "port": ("internet", "port"),
        "timeout": ("internet", "answer_s"),
    },
    f"{PREFIX}nccl_eval.NCCLEval": _SCOPED,
    f"{PREFIX}nccl_lib_eval.NcclLibEval": _SCOPED,
    f"{PREFIX}nccl_pytorch_eval.NcclPytorchEval": _ALL_REDUCE,
    f"{PREFIX}rccl_lib_eval.RcclLibEval": _ALL_REDUCE,
}
"""Per type: each of its parameters, the check that takes it, and its name there; empty: it has no meaning here."""

OPTIONAL = frozenset({"port", "timeout", "cuda_home", *_SCOPED})
"""The parameters that a file may leave out; their defaults are those of the checks here. All others are required."""

WITHOUT_EQUIVALENT: Mapping[str, str] = {
    f"{PREFIX}random.RandomEval": "it refuses nodes by chance, and a verdict must have a reason",
}
"""Types that vetnode 0.1.5 has and that have no check here, and why."""

_BYTES = {"b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
"""vetnode's units are binary, whatever they are called."""


def value(name: str, given: Any) -> Any:  # noqa: ANN401 - what a user wrote
    """Return the value of a parameter as the check here takes it; ValueError says what it must be.

    A bandwidth that is a bare number is in GB/s, as published protocols mean it (vetnode itself reads bytes).
    """
    convert = _CONVERSIONS.get(name)
    return convert(given) if convert else given


def _gb_per_s(given: Any) -> Any:  # noqa: ANN401 - same
    return _bytes(given.lower().removesuffix("/s")) / 1e9 if isinstance(given, str) else given


def _sizes_mib(given: Any) -> list[int]:  # noqa: ANN401 - same
    return [round(_bytes(given) / _BYTES["mb"])]


def _bytes(given: Any) -> float:  # noqa: ANN401 - same
    match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-z]*)\s*", str(given).lower())
    unit = _BYTES.get(match[2] or "b") if match else None
    if match is None or unit is None:
        raise ValueError("write a size such as 4 GB")
    return float(match[1]) * unit


def _runs(given: Any) -> Any:  # noqa: ANN401 - same
    if not isinstance(given, dict) or not set(given) <= {"payload", "runs"}:
        raise ValueError("write {payload: 256 MB, runs: 3}")
    return given.get("runs", 3)


_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "min_bandwidth": _gb_per_s,
    "payload": _sizes_mib,
    "warmup": _runs,
}


def refused_value(theirs: str, parameters: Mapping[str, Any]) -> str:
    """Say why an entry cannot be taken although its type can; empty if it can."""
    default = "broadcast" if theirs.endswith("NcclPytorchEval") else "allreduce"
    method = parameters.get("method", default) if EQUIVALENTS[theirs].get("method") else "allreduce"
    if method == "allreduce":
        return ""
    return f"its method is {method}, whose bandwidth is another figure; only allreduce is measured here"
