"""The drives of the node are well: what they say of themselves (SMART, NVMe), and what the kernel does of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from piolet.core.errors import ParseError, ToolMissing
from piolet.core.nouns import Status
from piolet.core.run import Runner, SystemRunner
from piolet.tools import sysfs
from piolet.vet.check import Check, Context, Judgement

NVME = Path("/sys/class/nvme")
BLOCK = Path("/sys/block")
_DRIVES = ("nvme*n*", "sd*")
_TIMEOUT_S = 4.0
_PENDING_SECTORS = 197
_NOT_ASKED = 0b11
_REMEDY = "tell the operators: `smartctl -a` of this drive on the node"


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a drive may have had.

    `max_used_fraction`: of the life that its maker promises (NVMe), 0..1. `max_media_errors`: reads that gave back
    nothing right (NVMe), and sectors that wait for a repair (SMART). `require_smart`: drives whose own word cannot be
    had make the node unknown; reading it takes root.
    """

    max_used_fraction: Annotated[float, Gt(0), Le(2)] = 1.0
    max_media_errors: Annotated[int, Ge(0)] = 0
    require_smart: bool = False


@dataclass(frozen=True, slots=True)
class Drive:
    """A drive: `trouble` is why it must not be used, `silent` why it says nothing of itself; None is not told."""

    name: str
    trouble: str = ""
    silent: str = ""
    used_fraction: float | None = None
    media_errors: int | None = None


def observe(parameters: Parameters, context: Context) -> tuple[Drive, ...]:  # noqa: ARG001 - the interface of checks
    """Ask the kernel for its controllers, and each drive for its own word."""
    names = sorted({path.name for pattern in _DRIVES for path in BLOCK.glob(pattern)})
    return (*controllers(NVME), *(asked(SystemRunner(), name) for name in names))


def controllers(directory: Path) -> tuple[Drive, ...]:
    """Return NVMe controllers that the kernel does not use: their state is another one than live."""
    states = {path.name: sysfs.text(path / "state") for path in sysfs.entries(directory)}
    return tuple(Drive(name, trouble=f"its controller is {state}") for name, state in states.items() if state != "live")


def asked(runner: Runner, name: str) -> Drive:
    """Return what smartctl says of a drive; its exit status is a mask, of which two bits say that it could not ask."""
    argv = ["smartctl", "--json", "--health", "--attributes", f"/dev/{name}"]
    try:
        done = runner.run(argv, timeout=_TIMEOUT_S, ok=None)
    except ToolMissing:
        return Drive(name, silent="smartctl is not installed")
    if done.rc & _NOT_ASKED:
        return Drive(name, silent="it may not be asked")
    return parse(name, done.stdout)


def parse(name: str, text: str) -> Drive:
    """Parse ``smartctl --json -H -A`` (smartmontools 7): NVMe's health log, or the attributes of ATA."""
    try:
        told: dict[str, Any] = json.loads(text)
        if told.get("smart_status") is None:
            return Drive(name, silent="it has no SMART")
        log = told.get("nvme_smart_health_information_log", {})
        table = told.get("ata_smart_attributes", {}).get("table", [])
        pending = next((each["raw"]["value"] for each in table if each["id"] == _PENDING_SECTORS), None)
        used = log.get("percentage_used")
        return Drive(
            name,
            trouble=_trouble(told["smart_status"]["passed"], log),
            used_fraction=None if used is None else used / 100,
            media_errors=log.get("media_errors", pending),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ParseError("not the answer of smartctl", source="smartctl --json", text=text[:200]) from error


def _trouble(passed: object, log: dict[str, Any]) -> str:
    if passed is not True:
        return "it says itself that it fails"
    if log.get("critical_warning"):
        return f"critical warning {log['critical_warning']:#04x}"
    if log.get("available_spare", 100) < log.get("available_spare_threshold", 0):
        return f"{log['available_spare']}% of its spare blocks are left"
    return ""


def judge(observation: tuple[Drive, ...], parameters: Parameters) -> Judgement:
    """Fail on a drive in trouble, one with errors, or one that is used up; unknown where one must speak and cannot."""
    for each in observation:
        if each.trouble:
            return Judgement(Status.FAIL, f"{each.name}: {each.trouble}", remedy=_REMEDY)
        if (each.media_errors or 0) > parameters.max_media_errors:
            reason = f"{each.name}: {each.media_errors} media errors"
            return Judgement(Status.FAIL, reason, each.media_errors, parameters.max_media_errors, "errors", _REMEDY)
        if (each.used_fraction or 0) > parameters.max_used_fraction:
            reason, limit = f"{each.name}: {each.used_fraction:.0%} of its life is used", parameters.max_used_fraction
            return Judgement(Status.FAIL, reason, each.used_fraction, limit, "fraction", _REMEDY)
    silent = ", ".join(f"{each.name} ({each.silent})" for each in observation if each.silent)
    if silent and parameters.require_smart:
        return Judgement(Status.UNKNOWN, f"not told: {silent}", remedy="set `require_smart: false`, or vet as root")
    said = f"{len(observation)} drives are well" if observation else "no drive here"
    return Judgement(Status.PASS, said + (f"; not told: {silent}" if silent else ""), len(observation), unit="drives")


CHECK = Check(
    name="drives",
    version=1,
    summary="drives are well by their own word, and the kernel uses them",
    source="smartctl(8); critical warning, spare blocks and use as in the health log of the NVMe specification; 100 % "
    "is the life that the maker promises",
    parameters=Parameters,
    observe=observe,
    judge=judge,
)
