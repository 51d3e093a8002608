"""Numbers and verdicts in words, the same in the terminal and in the report."""

from __future__ import annotations

from piolet.core.text import count, plural, size
from piolet.logbook.storage import JobStorage
from piolet.score.model import JobScore
from piolet.score.period import Period
from piolet.score.resources import Energy, Files, Network
from piolet.score.stages import PhaseSum
from piolet.score.steps import StepTime
from piolet.score.weights import sensitivity
from piolet.score.work import Work

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
    for least, unit in _ENERGY:
        if joules >= least:
            return f"{joules / least:.3g} {unit}"
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


def period(found: Period) -> str:
    """Return how often activity repeats."""
    return f"every {found.seconds:.3g} s"


def phase_times(found: PhaseSum) -> str:
    """Return how long the phases of one name were together, and how many there were."""
    return f"{duration(found.seconds)}, {found.count} times" if found.count > 1 else duration(found.seconds)


def work_facts(found: Work) -> list[tuple[str, str]]:
    """Return what is known of the program's work as (name, value)."""
    facts = []
    if found.mfu is not None:
        origin = "as the program says" if found.mfu_told else f"for {parameters(found.parameters)} parameters"
        facts.append(("MFU", f"{percent(found.mfu)}, {origin}"))
    if found.tokens_per_s is not None:
        facts.append(("Tokens a second", count(found.tokens_per_s)))
    if found.energy_per_token_j is not None:
        facts.append(("Energy per token", energy_per_token(found.energy_per_token_j)))
    return facts


def energy_per_token(joules: float) -> str:
    """Return joules per token with three digits, and in millijoules where that reads better."""
    return f"{joules:.3g} J" if joules >= 1 else f"{joules * 1000:.3g} mJ"


def parameters(number: float | None) -> str:
    """Return a number of parameters as people say it: 7 B, 350 M."""
    if number is None:
        return NOTHING
    return f"{number / 1e9:.3g} B" if number >= 1e9 else f"{number / 1e6:.3g} M"  # noqa: PLR2004 - a billion


def files_line(found: Files) -> str:
    """Return the traffic of a file system in one line."""
    parts = [
        f"read {size(found.read)}/s, at most {size(found.read_peak)}/s",
        f"written {size(found.write)}/s, at most {size(found.write_peak)}/s",
    ]
    if found.read_latency_s is not None:
        parts.append(f"a read takes {latency(found.read_latency_s)}")
    if found.write_latency_s is not None:
        parts.append(f"a write {latency(found.write_latency_s)}")
    return "; ".join(parts)


def storage_line(found: JobStorage) -> str:
    """Return what storage cost a job in time: waiting for it, and checkpoints."""
    if found.stall_s is None:
        waited = "Whether nodes waited for storage was not recorded"
    else:
        waited = f"Nodes waited {duration(found.stall_s)} for storage while their GPUs idled"
        waited += f", {percent(found.stall_share)} of the time; checkpoints do not count"
    told = found.checkpoints
    if told is None:
        return f"{waited}. The program told of no checkpoint."
    written = "" if told.write_bytes is None else f" and wrote {size(told.write_bytes)}"
    took = f"{plural(told.count, 'checkpoint')} of {duration(told.median_s)} took {percent(told.share)} of the time"
    return f"{waited}. {took}{written}."


def latency(seconds: float) -> str:
    """Return a short time in the unit that reads best."""
    return f"{seconds:.2g} s" if seconds >= 1 else f"{seconds * 1000:.2g} ms"


def network_line(found: Network) -> str:
    """Return the traffic of all adapters of a kind in one line."""
    share = "" if found.busiest is None else f", {percent(found.busiest)} of its speed"
    troubles = "".join(f"; {count(number)} {name}" for name, number in found.troubles.items())
    return (
        f"{plural(found.adapters, 'adapter')}: each receives {size(found.receive)}/s and sends {size(found.send)}/s; "
        f"the highest of one {size(found.highest)}/s{share}{troubles}"
    )


def energy_facts(found: Energy) -> list[tuple[str, str]]:
    """Return what is known of energy as (name, value)."""
    facts = [("Energy of the GPUs", energy(found.gpus_j))] if found.gpus_j is not None else []
    if found.gpu_w is not None:
        share = "" if found.limit_ratio is None else f", {percent(found.limit_ratio)} of the power limit"
        facts.append(("Power of a GPU", f"{found.gpu_w:.0f} W on average{share}"))
    if found.nodes_j is not None:
        facts.append(
            (
                "Energy of whole nodes",
                f"{energy(found.nodes_j)} of {plural(found.nodes_measured, 'node')}, GPUs included",
            )
        )
    return facts


def bounds(score: JobScore) -> str:
    """Return what weights could make of the three axes, in a sentence; empty if one was not measured."""
    found = sensitivity(score)
    if found is None:
        return ""
    (low, least), (high, most) = found
    return (
        f"Weighed otherwise, compute, memory and network give anything from {percent(least)} ({low} alone) "
        f"to {percent(most)} ({high} alone)."
    )
