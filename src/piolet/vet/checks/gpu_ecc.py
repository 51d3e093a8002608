"""No uncorrected memory error since the driver was loaded, none that waits for a repair, not too many repaired."""

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
    """What a GPU may have had.

    `max_uncorrected`, `max_corrected`: errors since the driver was loaded. `max_remapped_rows`, `max_retired_pages`:
    repairs of its whole life, after uncorrected errors (rows; Ampere and newer) or any (pages; older). `require_ecc`:
    GPUs must have ECC switched on.
    """

    max_uncorrected: Annotated[int, Ge(0)] = 0
    max_corrected: Annotated[int, Ge(0)] = 20_000_000
    max_remapped_rows: Annotated[int, Ge(0)] = 512
    max_retired_pages: Annotated[int, Ge(0)] = 10
    require_ecc: bool = True


@dataclass(frozen=True, slots=True)
class Ecc:
    """One GPU; None where it has no ECC, or (rows) is older than row remapping, or (pages) newer."""

    uncorrected: int | None
    remap_pending: bool | None
    remap_failed: bool | None
    remapped_rows: int | None = None
    retired_pages: int | None = None
    retirement_pending: bool | None = None
    corrected: int | None = None


def observe(parameters: Parameters, context: Context) -> Gpus[Ecc]:  # noqa: ARG001 - the interface of checks
    """Read volatile ECC counters and the state of row remapping and of page retirement."""
    return gpus.observe(context, _read)


def judge(observation: Gpus[Ecc], parameters: Parameters) -> Judgement:
    """Fail on the first GPU with more errors or repairs than allowed, or with repairs that are pending or failed."""
    nothing = gpus.nothing_to_judge(observation)
    if nothing:
        return nothing
    failed = next((bad for name, ecc in observation.answering if (bad := _bad(name, ecc, parameters))), None)
    if failed:
        return failed
    without = [name for name, ecc in observation.answering if ecc.uncorrected is None]
    if without and parameters.require_ecc:
        remedy = "switch ECC on, or set `require_ecc: false` for GPUs that have none"
        return Judgement(Status.UNKNOWN, f"{', '.join(without)}: ECC is off or not supported", remedy=remedy)
    worst = max((ecc.uncorrected or 0 for _, ecc in observation.answering), default=0)
    return Judgement(
        Status.PASS, f"{worst} uncorrected memory errors at most", worst, parameters.max_uncorrected, "errors"
    )


def _bad(name: str, ecc: Ecc, parameters: Parameters) -> Judgement | None:
    if ecc.remap_failed:
        return _failed(f"{name}: remapping a row failed", "this GPU must be replaced")
    counted = (
        (ecc.uncorrected, parameters.max_uncorrected, "uncorrected memory errors", "reset"),
        (ecc.corrected, parameters.max_corrected, "corrected memory errors", "reset"),
        (ecc.remapped_rows, parameters.max_remapped_rows, "rows remapped after uncorrected errors", "replaced"),
        (ecc.retired_pages, parameters.max_retired_pages, "retired pages", "replaced"),
    )
    for count, limit, what, remedy in counted:
        if count is not None and count > limit:
            return _failed(f"{name}: {count} {what}", f"this GPU must be {remedy}", count, limit)
    if ecc.remap_pending:
        return _failed(f"{name}: a row waits for remapping", "a reset of the GPU applies it")
    if ecc.retirement_pending:
        return _failed(f"{name}: a page waits for retirement", "a reset of the GPU applies it")
    return None


def _failed(reason: str, what_to_do: str, count: int | None = None, limit: int | None = None) -> Judgement:
    return Judgement(Status.FAIL, reason, count, limit, "errors", f"tell the operators: {what_to_do}")


def _read(handle: Any) -> Ecc:  # noqa: ANN401 - opaque
    rows = nvml.supported(pynvml.nvmlDeviceGetRemappedRows, handle)
    _, remapped, pending, failed = rows or (None,) * 4
    return Ecc(
        uncorrected=nvml.ecc_errors(handle, uncorrected=True),
        remap_pending=None if pending is None else bool(pending),
        remap_failed=None if failed is None else bool(failed),
        remapped_rows=remapped,
        retired_pages=_retired_pages(handle),
        retirement_pending=bool(nvml.supported(pynvml.nvmlDeviceGetRetiredPagesPendingStatus, handle)),
        corrected=nvml.ecc_errors(handle, uncorrected=False),
    )


def _retired_pages(handle: Any) -> int | None:  # noqa: ANN401 - opaque
    causes = range(pynvml.NVML_PAGE_RETIREMENT_CAUSE_COUNT)
    pages = [nvml.supported(pynvml.nvmlDeviceGetRetiredPages, handle, cause) for cause in causes]
    return None if None in pages else sum(map(len, pages))


CHECK = Check(
    name="gpu_ecc",
    version=3,
    summary="no uncorrected memory error, none that waits for a repair or could not be repaired, few repaired ones",
    source="NVIDIA GPU Memory Error Management: an error or pending remap needs a reset, a failed remap an RMA, and "
    "512 remapped rows are all there are; 10 retired pages and 20 million corrected errors are limits that "
    "scripts of large sites have",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    light=True,
)
