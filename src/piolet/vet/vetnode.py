"""The types of vetnode's protocols and the checks that they stand for here, so that those files run unchanged."""

from __future__ import annotations

from collections.abc import Mapping

PREFIX = "vetnode.evaluations."

TOP_LEVEL = ("scheduler", "pip")
"""Settings of vetnode that have no meaning here: Slurm is found by itself, and nothing is ever installed."""

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
}
"""Per type: each of its parameters, the check that takes it, and its name there; empty: it has no meaning here."""

OPTIONAL = frozenset({"port", "timeout", "cuda_home"})
"""The parameters that a file may leave out; their defaults are those of the checks here. All others are required."""

_NOT_YET = "no check here yet measures that"

WITHOUT_EQUIVALENT: Mapping[str, str] = {
    f"{PREFIX}nccl_eval.NCCLEval": _NOT_YET,
    f"{PREFIX}nccl_lib_eval.NcclLibEval": _NOT_YET,
    f"{PREFIX}nccl_pytorch_eval.NcclPytorchEval": _NOT_YET,
    f"{PREFIX}random.RandomEval": "it refuses nodes by chance, and a verdict must have a reason",
    f"{PREFIX}rccl_lib_eval.RcclLibEval": _NOT_YET,
}
"""Types that vetnode 0.1.5 has and that have no check here, and why."""
