"""The memory that the node should have is there: a module that failed is mapped out at boot, silently."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt, Lt

from piolet.core.nouns import Status
from piolet.tools import proc
from piolet.vet.check import Check, Context, Judgement

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Parameters:
    """`expected_mib`: the memory in MiB, as RealMemory of `scontrol show node` gives it; there is no default.

    `tolerance`: a fraction, 0..1; the kernel keeps some per cent for itself.
    """

    expected_mib: Annotated[int, Gt(0)]
    tolerance: Annotated[float, Ge(0), Lt(1)] = 0.05


def observe(parameters: Parameters, context: Context) -> int:  # noqa: ARG001 - the interface of checks
    """Return the memory that the kernel has, in bytes."""
    return proc.parse_meminfo(Path("/proc/meminfo").read_text(encoding="ascii")).total_bytes


def judge(observation: int, parameters: Parameters) -> Judgement:
    """Fail on less, and on more: then this is not the node that the protocol was written for."""
    found_mib, expected_mib = observation / MIB, parameters.expected_mib
    good = abs(found_mib - expected_mib) <= parameters.tolerance * expected_mib
    reason = f"{found_mib:.0f} MiB of memory where {expected_mib} are expected"
    remedy = "" if good else "tell the operators: a memory module may have failed; compare with `dmidecode -t memory`"
    return Judgement(Status.PASS if good else Status.FAIL, reason, round(found_mib), expected_mib, "MiB", remedy)


CHECK = Check(
    name="memory",
    version=1,
    summary="the memory that the node should have is there",
    source="5 %: less than one of 16 modules, more than the kernel keeps for itself",
    parameters=Parameters,
    observe=observe,
    judge=judge,
)
