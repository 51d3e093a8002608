"""Faults of simulated GPUs: what the command line says, and the timeline and kernel-log lines it stands for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from piolet.core.errors import UsageError
from piolet.core.text import did_you_mean

XID_DOUBLE_BIT_ERROR = 48
XID_NVLINK = 74

# What the driver says with each Xid (NVIDIA's Xid catalogue, kernel logs in public issues); others get a general text.
_XID_TEXT = {
    13: "Graphics SM Warp Exception on (GPC 0, TPC 0, SM 0): Out Of Range Address",
    31: "Ch 00000008, intr 00000000. MMU Fault: ENGINE GRAPHICS faulted @ 0x7f5c_40000000",
    43: "Ch 00000008, engmask 00000101",
    45: "Preemptive Removal, Ch 00000008",
    48: "DBE (double bit error) Detected",
    63: "Row Remapper: New row marked for remapping, reset gpu to activate",
    64: "Row Remapper: Failed to mark row for remapping",
    74: "NVLink: fatal error detected on link {link}(0x10000, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)",
    79: "GPU has fallen off the bus.",
    92: "High single-bit ECC error rate",
    94: "Contained ECC error",
    95: "Uncontained ECC error",
    119: "Timeout waiting for RPC from GSP!",
    120: "GSP task exception",
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(|[KMGT]i?B|B)", re.IGNORECASE)
_SIZE_MAX_BYTES = 10**15  # the largest number that the C parser takes
_POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}


class FaultKind(StrEnum):
    """The kinds of fault; the values are the words of the timeline."""

    XID = "xid"
    THROTTLE = "throttle"
    ECC_CORRECTED = "ecc-corrected"
    ECC_UNCORRECTED = "ecc-uncorrected"
    REMAP = "remap"
    NVLINK_DOWN = "nvlink-down"
    NVLINK_ERRORS = "nvlink-errors"
    PCIE_WIDTH = "pcie-width"
    SLOW = "slow"
    LEFTOVER_MEMORY = "leftover-memory"
    TEMP = "temp"
    HANG = "hang"
    CLEAR = "clear"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: its kind and its argument as the timeline writes it."""

    kind: FaultKind
    argument: str = ""

    def events(self) -> tuple[str, ...]:
        """Return the timeline events (without their time) that this fault appends."""
        first = f"{self.kind} {self.argument}".rstrip()
        if self.kind is FaultKind.ECC_UNCORRECTED:
            return first, "remap pending", f"xid {XID_DOUBLE_BIT_ERROR}"
        if self.kind is FaultKind.NVLINK_DOWN:
            return first, f"xid {XID_NVLINK}"
        return (first,)

    def xid(self) -> int | None:
        """Return the Xid that the driver would log with this fault, if any."""
        if self.kind is FaultKind.XID:
            return int(self.argument)
        return {FaultKind.ECC_UNCORRECTED: XID_DOUBLE_BIT_ERROR, FaultKind.NVLINK_DOWN: XID_NVLINK}.get(self.kind)

    def kernel_message(self, bus_id: str) -> str | None:
        """Return the driver's kernel-log text for the GPU at `bus_id` (0000:1b:00.0), or None."""
        xid = self.xid()
        if xid is None:
            return None
        link = self.argument if self.kind is FaultKind.NVLINK_DOWN else "0"
        text = _XID_TEXT.get(xid, "Simulated error").format(link=link)
        return f"NVRM: Xid (PCI:{bus_id.rpartition('.')[0]}): {xid}, pid='<unknown>', name=<unknown>, {text}"


def parse_faults(values: Mapping[str, object]) -> tuple[Fault, ...]:
    """Return the faults that command-line values stand for, such as ``{"xid": 79, "slow": "0.7"}``.

    Values of None or False were not given. Names are those of FLAGS; `clear` comes first if it is among them.

    Raises:
        UsageError: an unknown name, a value out of range (the message says what is allowed), or nothing given.
    """
    given = {name: value for name, value in values.items() if value is not None and value is not False}
    unknown = [name for name in given if name not in FLAGS]
    if unknown:
        raise UsageError(f'unknown fault "{unknown[0]}"', remedy=did_you_mean(unknown[0], FLAGS))
    if not given:
        raise UsageError("no fault given", remedy="give one of " + ", ".join(_option(name) for name in FLAGS))
    return tuple(Fault(FLAGS[name].kind, _argument(name, given[name])) for name in FLAGS if name in given)


@dataclass(frozen=True, slots=True)
class Flag:
    """A fault's flag: its kind, how its value is read (ValueError if wrong) and what is allowed, in words."""

    kind: FaultKind
    read: Callable[[str], str]
    allowed: str


def _argument(name: str, value: object) -> str:
    try:
        return FLAGS[name].read(str(value).strip())
    except ValueError:
        raise UsageError(f"{_option(name)} cannot be {str(value)!r}", remedy=f"give {FLAGS[name].allowed}") from None


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _integer(low: int, high: int) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not low <= int(text) <= high:
            raise ValueError(text)
        return str(int(text))

    return read


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return read


def _factor(text: str) -> str:
    if not 0 < float(text) < 1:
        raise ValueError(text)
    return format(float(text), ".6g")


def _size(text: str) -> str:
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(text)
    unit = match[2].upper()
    base = 1024 if "I" in unit else 1000
    size = int(Decimal(match[1]) * base ** _POWERS.get(unit[:1], 0))
    return _integer(1, _SIZE_MAX_BYTES)(str(size))


def _switch(text: str) -> str:
    if text != "True":
        raise ValueError(text)
    return ""


_COUNT = 10**12
FLAGS: Mapping[str, Flag] = {
    "clear": Flag(FaultKind.CLEAR, _switch, "no value"),
    "xid": Flag(FaultKind.XID, _integer(1, 999), "an Xid number from 1 to 999, such as 79"),
    "throttle": Flag(FaultKind.THROTTLE, _one_of("thermal", "power", "hw-slowdown"), "thermal, power or hw-slowdown"),
    "ecc_corrected": Flag(FaultKind.ECC_CORRECTED, _integer(1, _COUNT), "a number of errors from 1"),
    "ecc_uncorrected": Flag(FaultKind.ECC_UNCORRECTED, _integer(1, _COUNT), "a number of errors from 1"),
    "remap": Flag(FaultKind.REMAP, _one_of("pending", "failed"), "pending or failed"),
    "nvlink_down": Flag(FaultKind.NVLINK_DOWN, _integer(0, 17), "the number of a link, from 0"),
    "nvlink_errors": Flag(FaultKind.NVLINK_ERRORS, _integer(1, _COUNT), "a number of errors from 1"),
    "pcie_width": Flag(FaultKind.PCIE_WIDTH, _one_of("1", "2", "4", "8"), "1, 2, 4 or 8 lanes"),
    "slow": Flag(FaultKind.SLOW, _factor, "a factor between 0 and 1, such as 0.7"),
    "leftover_memory": Flag(FaultKind.LEFTOVER_MEMORY, _size, "a size such as 20GiB or 500MB"),
    "temp": Flag(FaultKind.TEMP, _integer(0, 150), "degrees Celsius from 0 to 150"),
    "hang": Flag(FaultKind.HANG, _switch, "no value"),
}
