"""The clock is kept by a time service and not far off, so that the logs of ranks can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from piolet.core.errors import ParseError, ToolError, ToolMissing
from piolet.core.nouns import Status
from piolet.core.run import Runner, SystemRunner
from piolet.tools.timex import kernel_clock
from piolet.vet.check import Check, Context, Judgement

_CHRONY = ("chronyc", "-c", "-n", "tracking")
_CHRONY_FIELDS = 14
_CHRONY_OFFSET = 4
_CHRONY_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """`max_offset_s`: seconds that the clock may be off, as far as the time service knows."""

    max_offset_s: Annotated[float, Gt(0)] = 0.128


@dataclass(frozen=True, slots=True)
class Clock:
    """Whether the clock is kept, and by how many seconds it is off; `source` is who says so."""

    synchronised: bool
    offset_s: float
    source: str = "kernel"


def observe(parameters: Parameters, context: Context) -> Clock:  # noqa: ARG001 - the interface of checks
    """Ask the kernel; where it knows of no time service, chrony, which need not tell it (rtcsync)."""
    told = from_kernel()
    return told if told.synchronised else from_chrony(SystemRunner()) or told


def from_kernel() -> Clock:
    """Return what the kernel says."""
    told = kernel_clock()
    return Clock(told.synchronised, told.to_add_s)


def from_chrony(runner: Runner) -> Clock | None:
    """Return what chronyd says; None if there is none."""
    try:
        said = runner.run(_CHRONY, timeout=_CHRONY_TIMEOUT_S).stdout
    except (ToolMissing, ToolError):
        return None
    return parse_chrony(said)


def parse_chrony(text: str) -> Clock:
    """Parse `chronyc -c tracking`: the fifth field is the offset in seconds, the last one the leap status."""
    fields = text.strip().split(",")
    try:
        if len(fields) == _CHRONY_FIELDS:
            return Clock(fields[-1] != "Not synchronised", float(fields[_CHRONY_OFFSET]), "chrony")
    except ValueError:
        pass
    raise ParseError("not the answer of chronyc", source=" ".join(_CHRONY), text=text)


def judge(observation: Clock, parameters: Parameters) -> Judgement:
    """Fail if nobody keeps the clock, or if it is too far off."""
    offset_s, limit_s = abs(observation.offset_s), parameters.max_offset_s
    if not observation.synchronised:
        remedy = "tell the operators: start the time service of the node (chronyd, ntpd, systemd-timesyncd)"
        return Judgement(Status.FAIL, f"no time service keeps the clock ({observation.source})", remedy=remedy)
    reason = f"the clock is {offset_s:.6f} s off ({observation.source})"
    if offset_s <= limit_s:
        return Judgement(Status.PASS, reason, offset_s, limit_s, "s")
    return Judgement(Status.FAIL, reason, offset_s, limit_s, "s", "tell the operators: `chronyc tracking` on the node")


CHECK = Check(
    name="clock",
    version=1,
    summary="the clock is kept by a time service and not far off",
    source="0.128 s is the step threshold of NTP (RFC 5905): a service that keeps the clock never lets it go so far",
    parameters=Parameters,
    observe=observe,
    judge=judge,
)
