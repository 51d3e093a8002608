"""No uncorrected memory error since the driver was loaded, no row that waits for remapping or could not be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pynvml

from piolet.core.nouns import Status
from piolet.tools import nvml
from piolet.vet import gpus
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.gpus import Gpus


@dataclass(frozen=True, slots=True)
class Parameters:
    """`max_uncorrected`: uncorrected errors a GPU may have had; `require_ecc`: GPUs must have ECC switched on."""

    max_uncorrected: int = 0
    require_ecc: bool = True


@dataclass(frozen=True, slots=True)
class Ecc:
    """One GPU; None where it has no ECC, or (rows) is older than row remapping."""

    uncorrected: int | None
    remap_pending: bool | None
    remap_failed: bool | None


def observe(parameters: Parameters, context: Context) -> Gpus[Ecc]:  # noqa: ARG001 - the interface of checks
    """Read volatile ECC counters and the state of row remapping."""
    return gpus.observe(context, _read)


def judge(observation: Gpus[Ecc], parameters: Parameters) -> Judgement:
    """Fail on the first GPU with more uncorrected errors than allowed, or with rows pending or failed."""
    nothing = gpus.nothing_to_judge(observation)
    if nothing:
        return nothing
    limit = parameters.max_uncorrected
    for name, ecc in observation.answering:
        if ecc.remap_failed:
            return _failed(f"{name}: remapping a row failed", "this GPU must be replaced")
        if ecc.uncorrected is not None and ecc.uncorrected > limit:
            reason = f"{name}: {ecc.uncorrected} uncorrected memory errors"
            return _failed(reason, "this GPU must be reset", ecc.uncorrected, limit)
        if ecc.remap_pending:
            return _failed(f"{name}: a row waits for remapping", "a reset of the GPU applies it")
    without = [name for name, ecc in observation.answering if ecc.uncorrected is None]
    if without and parameters.require_ecc:
        remedy = "switch ECC on, or set `require_ecc: false` for GPUs that have none"
        return Judgement(Status.UNKNOWN, f"{', '.join(without)}: ECC is off or not supported", remedy=remedy)
    worst = max((ecc.uncorrected or 0 for _, ecc in observation.answering), default=0)
    return Judgement(Status.PASS, f"{worst} uncorrected memory errors at most", worst, limit, "errors")


def _failed(reason: str, what_to_do: str, count: int | None = None, limit: int | None = None) -> Judgement:
    return Judgement(Status.FAIL, reason, count, limit, "errors", f"tell the operators: {what_to_do}")


def _read(handle: Any) -> Ecc:  # noqa: ANN401 - opaque
    rows = nvml.optional(pynvml.nvmlDeviceGetRemappedRows, handle)
    pending, failed = (bool(rows[2]), bool(rows[3])) if rows else (None, None)
    return Ecc(nvml.ecc_errors(handle, uncorrected=True), pending, failed)


CHECK = Check(
    name="gpu_ecc",
    version=1,
    summary="no uncorrected memory error, no row that waits for remapping or could not be remapped",
    source="NVIDIA GPU Memory Error Management: an error or pending remap needs a reset, a failed remap an RMA",
    parameters=Parameters,
    observe=observe,
    judge=judge,
)
