"""The kernel's clock and what it knows of its error, from adjtimex(2). Reads only: no mode is ever given."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

_UNSYNCHRONISED = 0x40
_NANOSECONDS = 0x2000


@dataclass(frozen=True, slots=True)
class KernelClock:
    """Whether a time service keeps the clock; seconds that are still to be added to it, and the most it may be off.

    chronyd corrects the rate instead, so that nothing is left to add; the bound holds nevertheless.
    """

    synchronised: bool
    to_add_s: float
    max_error_s: float


class _Timex(ctypes.Structure):
    """The beginning of struct timex, and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def kernel_clock() -> KernelClock:
    """Ask the kernel.

    Raises:
        OSError: it refused, as a seccomp filter may.
    """
    state = _Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return parse(state.offset, state.maxerror, state.status)


def parse(offset: int, max_error_us: int, status: int) -> KernelClock:
    """Return what the fields of struct timex mean: the unit of `offset` is a bit of `status`."""
    unit_s = 1e-9 if status & _NANOSECONDS else 1e-6
    return KernelClock(not status & _UNSYNCHRONISED, offset * unit_s, max_error_us * 1e-6)
