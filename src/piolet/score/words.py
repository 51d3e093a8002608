"""Numbers and verdicts in words, the same in the terminal and in the report."""

from __future__ import annotations

from piolet.score.model import JobScore
from piolet.score.steps import StepTime

NOTHING = "\N{EN DASH}"
"""Stands for what is not known."""

FACTORS = (
    ("used", "Used", "GPUs that did any work, of those allocated"),
    ("busy", "Busy", "time in which the leading GPU had work, of the run time"),
    ("balance", "Balanced", "how close the GPUs stay to the leading one"),
    ("intensity", "Saturated", "how hard the leading GPU worked while it had work"),
)
"""Of each factor: its name in Factors, a heading, what it means."""

_MINUTE_S = 60
_HOUR_S = 3600
_TEN = 10
_ENERGY = ((3.6e9, "MWh"), (3.6e6, "kWh"), (3.6e3, "Wh"))


def percent(ratio: float | None) -> str:
    """Return a ratio 0..1 as a percentage; a dash if it is not known."""
    if ratio is None:
        return NOTHING
    value = ratio * 100
    return f"{value:.1f}\N{NO-BREAK SPACE}%" if 0 < value < _TEN else f"{value:.0f}\N{NO-BREAK SPACE}%"


def duration(seconds: float | None) -> str:
    """Return seconds as ``8.0 s``, ``42 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    if seconds is None:
        return NOTHING
    if seconds < _TEN:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        minutes, rest = divmod(whole, _MINUTE_S)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, rest = divmod(round(whole / _MINUTE_S), _MINUTE_S)
    return f"{hours} h {rest:02d} min"


def energy(joules: float | None) -> str:
    """Return joules in the unit that reads best, from J to MWh."""
    if joules is None:
        return NOTHING
    for size, unit in _ENERGY:
        if joules >= size:
            return f"{joules / size:.3g} {unit}"
    return f"{joules:.0f} J"


def headline(score: JobScore) -> str:
    """Return one sentence that says what the score means."""
    if score.score is None:
        return "There is no saturation score: the GPUs' activity is not known."
    return (
        f"Over the GPU time that this job held, its GPUs ran at {percent(score.score)} of what "
        "their hardware can attain in compute or memory, whichever was nearer."
    )


def steady(score: JobScore) -> str:
    """Return the sentence on steady state, empty if there was no long start-up."""
    if not score.startup_s or score.steady is None:
        return ""
    return f"{percent(score.steady)} in steady state, without the first {duration(score.startup_s)} of start-up"


def step_time(found: StepTime | None) -> str:
    """Return the median step time with its spread; a dash if there is none."""
    if found is None:
        return NOTHING
    p10, p50, p90 = (f"{value:.3g}" for value in (found.p10_s, found.p50_s, found.p90_s))
    return f"{p50} s (p10 {p10}, p90 {p90})"
