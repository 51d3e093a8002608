"""No uncorrected error of memory or processors, and few corrected ones: EDAC's counters, rasdaemon, the kernel log."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt

from piolet.core.nouns import Status
from piolet.tools import kmsg, sysfs
from piolet.vet.check import Check, Context, Judgement

CONTROLLERS = Path("/sys/devices/system/edac/mc")
RASDAEMON = Path("/var/lib/rasdaemon/ras-mc_event.db")
_MACHINE_CHECK = re.compile(r"Machine Check(?: Exception)?: \w+ Bank (?P<bank>\d+): (?P<status>[0-9a-f]{16})")
_EDAC = re.compile(r"EDAC (?P<controller>\S+): (?P<count>\d+) (?P<kind>CE|UE) ")
_UNCORRECTED = 1 << 61
"""Bit UC of a bank's status register (Intel SDM 3B, IA32_MCi_STATUS; AMD's is the same)."""

_MEMORY = "SELECT label, err_type, sum(err_count) FROM mc_event WHERE timestamp >= ? GROUP BY label, err_type"
_RECORDS = "SELECT bank, status FROM mce_record WHERE timestamp >= ?"


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the node may have had.

    `max_corrected`: corrected errors of a memory module or bank. `window_s`: seconds back for which the kernel log and
    rasdaemon count; EDAC counts since the boot.
    """

    max_corrected: Annotated[int, Ge(0)] = 1000
    window_s: Annotated[float, Gt(0)] = 86400.0


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors of a memory module, controller or bank of a processor, as `source` tells them."""

    name: str
    source: str
    corrected: int = 0
    uncorrected: int = 0


def observe(parameters: Parameters, context: Context) -> tuple[Errors, ...]:
    """Read what there is of EDAC, rasdaemon and the kernel log, each of which may be absent or root's alone."""
    since_s = time.time() - parameters.window_s
    found = [*controllers(CONTROLLERS), *recorded(RASDAEMON, since_s)]
    try:
        text = kmsg.read_log(context.kernel_log)
    except OSError:
        return tuple(found)
    return (*found, *logged(text, time.monotonic() - parameters.window_s))


def controllers(directory: Path) -> Iterator[Errors]:
    """Yield the counters of EDAC's memory modules, or of its controllers where those tell them for all."""
    for controller in sysfs.entries(directory):
        modules = sorted(path.parent for path in controller.glob("*/dimm_ce_count"))
        for place in modules or [controller]:
            prefix = "dimm_" if modules else ""
            corrected, uncorrected = (sysfs.number(place / f"{prefix}{kind}_count") for kind in ("ce", "ue"))
            name = sysfs.text(place / "dimm_label") or str(place.relative_to(directory))
            if corrected is not None or uncorrected is not None:
                yield Errors(name, "EDAC", corrected or 0, uncorrected or 0)


def recorded(database: Path, since_s: float) -> Iterator[Errors]:
    """Yield what rasdaemon has recorded since then (its tables are those that ras-mc-ctl reads)."""
    import sqlite3  # noqa: PLC0415 - few nodes have rasdaemon

    since = time.strftime("%F %T", time.localtime(since_s))
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            for label, kind, count in connection.execute(_MEMORY, [since]).fetchall():
                corrected = kind == "Corrected"
                yield Errors(label, "rasdaemon", count * corrected, count * (not corrected))
            for bank, status in connection.execute(_RECORDS, [since]).fetchall():
                yield _of_bank(bank, status, "rasdaemon")
    except sqlite3.Error:
        return


def logged(text: str, since_s: float) -> Iterator[Errors]:
    """Yield the machine checks and EDAC's messages of a kernel log; `since_s` is on its clock, seconds since boot."""
    for message in kmsg.parse("\n".join(line for line in text.splitlines() if "EDAC" in line or "Bank" in line)):
        if message.time_us / 1e6 < since_s:
            continue
        if match := _MACHINE_CHECK.search(message.text):
            yield _of_bank(match["bank"], int(match["status"], 16), "kernel log")
        elif match := _EDAC.search(message.text):
            count, corrected = int(match["count"]), match["kind"] == "CE"
            yield Errors(match["controller"], "kernel log", count * corrected, count * (not corrected))


def _of_bank(bank: object, status: int, source: str) -> Errors:
    uncorrected = bool(status & _UNCORRECTED)
    return Errors(f"bank {bank}", source, int(not uncorrected), int(uncorrected))


def judge(observation: tuple[Errors, ...], parameters: Parameters) -> Judgement:
    """Fail on what was not corrected, then on what was too often; a node that counts nothing passes, and says so."""
    remedy = "tell the operators: this memory module or processor must be replaced"
    for each in observation:
        if each.uncorrected:
            reason = f"{each.name}: {each.uncorrected} uncorrected errors ({each.source})"
            return Judgement(Status.FAIL, reason, each.uncorrected, 0, "errors", remedy)
    totals: dict[tuple[str, str], int] = {}
    for each in observation:
        key = (each.name, each.source)
        totals[key] = totals.get(key, 0) + each.corrected
    (name, source), most = max(totals.items(), key=lambda item: item[1], default=(("", ""), 0))
    if most > parameters.max_corrected:
        reason = f"{name}: {most} corrected errors ({source})"
        return Judgement(Status.FAIL, reason, most, parameters.max_corrected, "errors", remedy)
    said = f"{most} corrected errors at most" if observation else "no hardware error is told here"
    return Judgement(Status.PASS, said, most, parameters.max_corrected, "errors")


CHECK = Check(
    name="hardware_errors",
    version=1,
    summary="memory and processors have had no uncorrected error, and few corrected ones",
    source="Intel SDM 3B (machine-check architecture), EDAC of the kernel; 1000 is much: of the modules of a large "
    "fleet only one in twelve has any corrected error in a year (Schroeder et al., 2009)",
    parameters=Parameters,
    observe=observe,
    judge=judge,
)
