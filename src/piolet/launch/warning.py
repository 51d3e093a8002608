"""The time limit is near: Slurm says so to the batch job, and the program is told by a signal that it chose."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from piolet.core.errors import UsageError
from piolet.core.run import Process

SENT = signal.SIGUSR1
"""What Slurm sends to the batch job, whatever the program gets."""

_FORM = re.compile(r"(?:(?P<name>[A-Z0-9]+)@)?(?P<seconds>[1-9]\d{0,4})")


@dataclass(frozen=True, slots=True)
class Notice:
    """`number` is sent to every rank `seconds` before the time limit."""

    number: signal.Signals
    seconds: int

    @property
    def option(self) -> str:
        """The option of sbatch; Slurm itself may be up to a minute early."""
        return f"--signal=B:{SENT.name.removeprefix('SIG')}@{self.seconds}"


def parse(text: str) -> Notice:
    """Parse ``USR1@300`` or ``300``; a UsageError says what is wrong."""
    match = _FORM.fullmatch(text)
    name = f"SIG{(match['name'] or 'USR1').removeprefix('SIG')}" if match else ""
    if match is None or name not in signal.Signals.__members__ or name in {"SIGKILL", "SIGSTOP"}:
        raise UsageError(f'--signal cannot be "{text}"', remedy="write SIGNAL@SECONDS, as in USR1@300")
    return Notice(signal.Signals[name], int(match["seconds"]))


class Warned:
    """Whether the warning has come, and passing it on to the program, however early it comes."""

    def __init__(self, notice: Notice) -> None:
        self.given = False
        self._notice = notice
        self._passed_on = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the warning inside the block. For the main thread."""
        old = signal.signal(SENT, self._hear)
        try:
            yield
        finally:
            signal.signal(SENT, old)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        self.given = True

    def pass_on(self, step: Process) -> None:
        """Tell the ranks, once; srun passes signals on to them."""
        if self.given and not self._passed_on:
            self._passed_on = True
            step.send_signal(self._notice.number)
