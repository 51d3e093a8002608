"""What a program says of itself while it is recorded: `piolet.log` and `piolet.phase`.

A report is one datagram of one line to the recorder of this node (docs/reference/user-metrics.md). Nothing here can
disturb the program: it never raises, never waits for the recorder, and does nothing where none listens. It imports
only the standard library, and nothing else of Piolet.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

VARIABLE = "PIOLET_METRICS"
"""Names the recorder's socket, which is abstract: it needs no mount to be reached from a container."""

_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
_OWN_WORDS = {"rank", "phase", "lost"}
_LONGEST_WORD = 64


class _Told:
    """What this process told last: its phase, which every report repeats, and how many did not get through."""

    phase = ""
    lost = 0


def log(step: int | None = None, **values: object) -> None:
    """Report numbers, such as `loss` or `tokens`, of a training step.

    Values become floats. What cannot is left out; a tensor on a GPU is waited for, as `float` does. Give times in
    seconds, sizes in bytes, counts as they are. The recorder keeps about 500 numbers a second and node.
    """
    with suppress(Exception):
        numbers = {_word(name): number for name, value in values.items() if (number := _number(value))}
        numbers = {name: number for name, number in numbers.items() if name not in _OWN_WORDS}
        if numbers:
            _send({**({} if step is None else {"step": str(int(step))}), **numbers})


def phase(name: str) -> None:
    """Say that the job enters a phase, such as start-up, training or checkpoint; what rank 0 says counts."""
    with suppress(Exception):
        _Told.phase = _word(str(name))
        _send({})


def address(template: str) -> str:
    """Return the socket's address from its name, in which `{node}` stands for this node as Slurm calls it."""
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]
    return "\0" + template.replace("{node}", node)


def _number(value: object) -> str:
    try:
        return repr(float(value))  # type: ignore[arg-type] # what is not a number is what the clause below is for
    except Exception:  # noqa: BLE001 - a value of any class may raise anything; the others are still reported
        return ""


def _word(text: str) -> str:
    """Return `text` with everything that the format does not allow replaced."""
    return "".join(each if each.isalnum() or each in "_./-" else "-" for each in text[:_LONGEST_WORD])


def _send(words: dict[str, str]) -> None:
    template = os.environ.get(VARIABLE)
    if not template:
        return
    rank = next((os.environ[name] for name in _RANKS if os.environ.get(name)), "")
    own = {"rank": rank, "phase": _Told.phase, "lost": str(_Told.lost or "")}
    line = " ".join(f"{name}={value}" for name, value in (own | words).items() if value)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(0)
        try:
            sender.sendto(line.encode(), address(template))
        except BlockingIOError:  # the recorder's queue is full
            _Told.lost += 1
        else:
            _Told.lost = 0
