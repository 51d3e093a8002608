"""No fatal Xid in the recent past: neither a lost GPU nor a fatal error message of the driver."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt

from piolet.core.nouns import Status
from piolet.tools import kmsg
from piolet.vet import gpus
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.gpus import Gpus

FATAL = {
    48: "double-bit ECC error",
    56: "display engine error",
    57: "error programming the memory interface",
    58: "unstable memory interface",
    62: "internal micro-controller halt",
    64: "row remapping or page retirement failed",
    65: "video processor exception",
    69: "graphics engine class error",
    73: "video encoder error",
    74: "NVLink error",
    79: "GPU has fallen off the bus",
    80: "corrupted data sent to the GPU",
    81: "VGA subsystem error",
    95: "uncontained ECC error",
    119: "GSP does not answer",
    120: "GSP error",
}
"""After these a GPU is not to be used before an operator has looked; names as in NVIDIA's "Xid Errors".

The numbers are those on which vetting scripts of large sites agree, and 95, after which NVIDIA asks for a reset.
"""

CONTESTED = {
    63: "row remapping or page retirement recorded",
    68: "video decoder exception",
    92: "many single-bit errors",
}
"""Fatal at some sites and not at others. Those that programs cause (13, 31, 43, 45) say nothing about a node."""

GPU_LOST = 79


@dataclass(frozen=True, slots=True)
class Parameters:
    """What counts, and for how long.

    `window_s`: how far back, in seconds; `fatal`: the Xids that refuse a node; `contested_fail`: 63, 68 and 92 do too;
    `require_log`: a kernel log that cannot be read makes the check unknown.
    """

    window_s: Annotated[float, Gt(0)] = 7200.0
    fatal: tuple[int, ...] = tuple(FATAL)
    contested_fail: bool = False
    require_log: bool = False


@dataclass(frozen=True, slots=True)
class Logged:
    """An Xid of the kernel log, `age_s` seconds old; `bus_id` as kmsg.bus_id gives it."""

    code: int
    bus_id: str
    age_s: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """Which GPUs are lost, the Xids of the log, and why the log could not be read, if so."""

    gpus: Gpus[bool]
    logged: tuple[Logged, ...] = ()
    log_error: str = ""


def observe(parameters: Parameters, context: Context) -> Observation:  # noqa: ARG001 - the interface of checks
    """Ask the GPUs whether they are lost, and read the kernel log."""
    found = gpus.observe(context, gpus.answers)
    try:
        text = kmsg.read_log(context.kernel_log)
    except OSError as error:
        return Observation(found, log_error=f"{context.kernel_log}: {error.strerror}")
    return Observation(found, logged(text, time.monotonic()))


def logged(text: str, now_s: float) -> tuple[Logged, ...]:
    """Return the Xids in kernel-log records; `now_s` is on the log's clock, seconds since boot."""
    found = []
    for message in kmsg.parse("\n".join(line for line in text.splitlines() if "Xid" in line)):
        xid = kmsg.parse_xid(message.text)
        if xid:
            found.append(Logged(xid.code, xid.bus_id, now_s - message.time_us / 1e6, xid.detail))
    return tuple(found)


def judge(observation: Observation, parameters: Parameters) -> Judgement:
    """Fail on the newest fatal Xid of a GPU that is not known to be another job's, then on a lost GPU."""
    found = observation.gpus
    fatal = {*parameters.fatal, *(CONTESTED if parameters.contested_fail else ())}
    recent = [xid for xid in observation.logged if xid.age_s <= parameters.window_s and xid.bus_id not in found.others]
    for xid in sorted(recent, key=lambda xid: xid.age_s):
        if xid.code in fatal:
            return _failed(xid.code, f"{_name(xid, found)}: {_words(xid)}, {xid.age_s / 60:.0f} min ago")
    if found.lost:
        worst = found.lost[0]
        return _failed(GPU_LOST, f"{worst.name}: {worst.lost} (as after Xid {GPU_LOST})")
    nothing = gpus.nothing_to_judge(found)
    if nothing:
        return nothing
    if observation.log_error:
        return _unread(observation.log_error, required=parameters.require_log)
    seen = ", ".join(sorted({f"Xid {xid.code}" for xid in recent}))
    window = f"in the last {parameters.window_s / 60:.0f} min"
    return Judgement(Status.PASS, f"no fatal Xid {window}" + (f" (seen, not fatal: {seen})" if seen else ""))


def _name(xid: Logged, found: Gpus[bool]) -> str:
    return next((each.name for each in found.readings if each.bus_id == xid.bus_id), f"GPU at {xid.bus_id}")


def _words(xid: Logged) -> str:
    words = FATAL.get(xid.code) or CONTESTED.get(xid.code) or xid.detail
    return f"Xid {xid.code}" + (f" ({words})" if words else "")


def _failed(code: int, reason: str) -> Judgement:
    return Judgement(
        Status.FAIL, reason, code, unit="Xid", remedy="tell the operators: the GPU or the node needs a reset"
    )


def _unread(error: str, *, required: bool) -> Judgement:
    if required:
        remedy = "let users read the kernel log (kernel.dmesg_restrict=0), or set `require_log: false`"
        return Judgement(Status.UNKNOWN, f"the kernel log cannot be read: {error}", remedy=remedy)
    return Judgement(Status.PASS, f"no GPU is lost; the kernel log could not be read ({error})")


CHECK = Check(
    name="gpu_xid",
    version=1,
    summary="no GPU is lost, and the driver has logged no fatal Xid recently",
    source="NVIDIA driver documentation, Xid Errors; numbers and window of 2 h as in the scripts of large sites",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    light=True,
)
