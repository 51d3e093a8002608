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
}
"""Per type: each of its parameters (all are required), the check that takes it, and its name there."""

WITHOUT_EQUIVALENT = tuple(
    PREFIX + name
    for name in (
        "cuda_eval.CUDAEval",
        "env_var_eval.EnvVarEval",
        "internet_access.InternetAccessEval",
        "nccl_eval.NCCLEval",
        "nccl_lib_eval.NcclLibEval",
        "nccl_pytorch_eval.NcclPytorchEval",
        "random.RandomEval",
        "rccl_lib_eval.RcclLibEval",
    )
)
"""Types that vetnode 0.1.5 has and Piolet has no check for."""
