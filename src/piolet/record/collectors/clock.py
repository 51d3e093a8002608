"""How far the node's clock is off, as the kernel knows it from the time service, as the family `clock`.

Source: adjtimex(2). The kernel's bound on the error grows by 500 ppm until the service tells it a new one (RFC 5905).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from piolet.core.errors import PioletError
from piolet.record.collector import Context, Entry, NotApplicable
from piolet.tools.timex import KernelClock, kernel_clock

REFERENCE = "utc"
"""What the offset is against: the time service's idea of UTC, not another node."""


class ClockCollector:
    """Samples the clock's state; `ask` stands for the kernel in tests."""

    family = "clock"
    least_interval_s = 10.0

    def __init__(self, context: Context, ask: Callable[[], KernelClock] = kernel_clock) -> None:  # noqa: ARG002
        self._ask = ask
        if not ask().synchronised:
            raise NotApplicable("no time service tells the kernel how far the clock is off", where="adjtimex(2)")

    def collect(self, time_ns: int) -> list[Entry]:
        """Return one row.

        Raises:
            PioletError: the service was there, but gave up the clock.
        """
        state = self._ask()
        if not state.synchronised:
            raise PioletError("the time service no longer keeps the clock", where="adjtimex(2)")
        return [("clock", {"time_ns": time_ns} | derive(state))]


def derive(state: KernelClock) -> dict[str, Any]:
    """Return the columns of `clock`: what the kernel is still to add is what the clock lacks."""
    return {"reference": REFERENCE, "offset_s": -state.to_add_s, "uncertainty_s": state.max_error_s}
