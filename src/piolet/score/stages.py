"""The phases of a job with what each was: those that the program told, else those found in its saturation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from piolet.core.text import size
from piolet.logbook.reader import Reader
from piolet.score import measure
from piolet.score.labels import IO_WAIT_HIGH, activity, label
from piolet.score.measure import Window
from piolet.score.model import Label, Phase
from piolet.score.period import Period, period
from piolet.score.phases import Kind, stretches

MOST_TOLD = 500
"""A program that changes its phase more often than this does not tell phases but steps."""

WRITING = 50e6
"""Bytes per second that all nodes together write in a checkpoint at least."""

COPYING = 1e9
"""Bytes per second over a GPU's PCIe in a checkpoint at least."""

MORE = 2.0
"""A checkpoint writes or copies this many times as much as steady state."""


@dataclass(frozen=True, slots=True)
class PhaseSum:
    """All phases of one name: how many, their seconds, their share of the job, and what the longest of them was."""

    name: str
    count: int
    seconds: float
    share: float
    score: float | None
    label: Label
    evidence: str


def summed(phases: Sequence[Phase]) -> list[PhaseSum]:
    """Return the phases by name, in the order in which the names first come."""
    length_s = sum(phase.duration_s for phase in phases)
    return [_summed([phase for phase in phases if phase.name == name], length_s) for name in _names(phases)]


def _names(phases: Sequence[Phase]) -> list[str]:
    return list(dict.fromkeys(phase.name for phase in phases))


def _summed(phases: Sequence[Phase], length_s: float) -> PhaseSum:
    seconds = sum(phase.duration_s for phase in phases)
    scored = [phase for phase in phases if phase.score is not None]
    weight = sum(phase.duration_s for phase in scored)
    score = sum((phase.score or 0.0) * phase.duration_s for phase in scored) / weight if weight else None
    longest = max(scored or phases, key=lambda phase: phase.duration_s)
    share = seconds / length_s if length_s else 0.0
    return PhaseSum(longest.name, len(phases), seconds, share, score, longest.label, longest.evidence)


Span = tuple[str, float, float]
Row = Mapping[str, Any]


def phases_of(
    reader: Reader, window: Window, startup_s: float, seconds: Sequence[tuple[float, ...]], coverage_ratio: float
) -> tuple[tuple[Phase, ...], Period | None]:
    """Return the phases of a job whose tables are prepared, and the time in which its activity repeats.

    `seconds` are (seconds since the start, mean saturation) of each bin.
    """
    repeats = period([value for time_s, value in seconds if time_s >= startup_s], window.bin_s)
    told = _told(reader, window)
    found = told or [(str(each.kind), each.from_s, each.to_s) for each in _found(window, startup_s, seconds, repeats)]
    rows = {row["number"]: row for row in measure.by_phase(reader, window, [start for _, start, _ in found])}
    steady = next((rows[at] for at, span in enumerate(found) if span[0] == Kind.STEADY and at in rows), {})
    phases = (_phase(span, rows.get(at), steady, coverage_ratio, bool(told)) for at, span in enumerate(found))
    return tuple(phases), repeats


def _found(
    window: Window, startup_s: float, seconds: Sequence[tuple[float, ...]], repeats: Period | None
) -> Sequence[Any]:
    times_s, values = zip(*seconds, strict=True) if seconds else ((), ())
    return stretches(
        times_s,
        values,
        end_s=window.duration_s,
        startup_s=startup_s,
        bin_s=window.bin_s,
        period_s=repeats.seconds if repeats else 0.0,
    )


def _told(reader: Reader, window: Window) -> list[Span]:
    changes = measure.told_phases(reader, window)
    changes = [each for before, each in pairwise([(0.0, ""), *changes]) if each[1] != before[1]]
    if not changes or len(changes) > MOST_TOLD:
        return []
    before = [("before the first phase", 0.0, changes[0][0])] if changes[0][0] > window.bin_s else []
    ends = [*(start for start, _ in changes[1:]), window.duration_s]
    return [*before, *((name, start, end) for (start, name), end in zip(changes, ends, strict=True) if end > start)]


def _phase(span: Span, row: Row | None, steady: Row, coverage_ratio: float, told: bool) -> Phase:  # noqa: FBT001 - a fact
    name, from_s, to_s = span
    if row is None:
        return Phase(name, from_s, to_s, told)
    name, evidence = (name, "") if told or name not in {Kind.LOW, Kind.TAIL} else _pause(name, row, steady)
    return Phase(name, from_s, to_s, told, row["score"], label(activity(row, row), coverage_ratio), evidence)


def _pause(name: str, row: Row, steady: Row) -> tuple[str, str]:
    """Return what a phase without work was, and what speaks for that."""
    written, copied = row["write_bytes_per_s"] or 0.0, row["pcie"] or 0.0
    signs = []
    if written >= max(WRITING, MORE * (steady.get("write_bytes_per_s") or 0.0)):
        signs.append(f"{size(written)}/s written")
    if copied >= max(COPYING, MORE * (steady.get("pcie") or 0.0)):
        signs.append(f"{size(copied)}/s over PCIe")
    if signs:
        return ("checkpoint" if name == Kind.LOW else name), ", ".join(signs)
    waiting = max(row["iowait"] or 0.0, row["io_pressure"] or 0.0)
    stalled = (
        f"hosts wait for I/O {100 * waiting:.0f}\N{NO-BREAK SPACE}% of the time" if waiting >= IO_WAIT_HIGH else ""
    )
    return ("stall" if name == Kind.LOW else name), stalled
