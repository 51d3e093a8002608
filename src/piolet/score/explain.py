"""How a score came about, number by number: for whoever does not believe it. Pure text over a JobScore."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter

from piolet.score import words
from piolet.score.ceilings import of_model
from piolet.score.labels import trace
from piolet.score.model import IDLE_RATIO, Factors, GpuScore, GpuTotals, JobScore

_WIDTH = 11


def explanation(score: JobScore) -> Iterator[str]:
    """Yield the lines of the explanation, blank ones between its parts."""
    if score.score is None or score.factors is None:
        yield "There is no score."
    else:
        yield from _sums(score, score.factors)
        yield ""
        yield from _axes(score)
        yield ""
    yield from _ceilings(score)
    yield ""
    yield from _label(score)
    yield from (_line("not known" if not at else "", note) for at, note in enumerate(score.notes))


def _line(name: str, text: str) -> str:
    return f"{name:{_WIDTH}} {text}".rstrip()


def _sums(score: JobScore, factors: Factors) -> Iterator[str]:
    known = [gpu for gpu in score.gpus if gpu.totals and gpu.totals.observed_s]
    used = [gpu for gpu in known if gpu.used]
    leader = max(used, key=attrgetter("score"), default=known[0])
    parts = " x ".join(f"{name} {getattr(factors, name):.4f}" for name, _, _ in words.FACTORS)
    yield _line("score", f"{score.score:.4f} = {parts}")
    yield _line(
        "", f"{_total(known, 'saturated_s'):.1f} saturated of {_total(known, 'observed_s'):.1f} GPU-seconds seen"
    )
    yield _line(
        "used", f"{len(used)} of {len(known)} GPUs reached {IDLE_RATIO:.0%} in some second: {_seconds(used, known)}"
    )
    if leader.totals:
        yield from _leader(leader, leader.totals, used)
    if score.steady is not None and score.startup_s:
        yield _line("steady", f"{score.steady:.4f} without the first {score.startup_s:.1f} s")


def _seconds(used: Sequence[GpuScore], known: Sequence[GpuScore]) -> str:
    return f"{_total(used, 'observed_s'):.1f} of {_total(known, 'observed_s'):.1f} GPU-seconds"


def _leader(leader: GpuScore, sums: GpuTotals, used: Sequence[GpuScore]) -> Iterator[str]:
    name = f"{leader.node}:{leader.index}"
    mean = _total(used, "saturated_s") / (_total(used, "observed_s") or 1.0)
    yield _line("busy", f"{name} leads and had work for {sums.busy_s:.1f} of {sums.observed_s:.1f} s")
    yield _line("balance", f"the used GPUs are saturated {mean:.4f} on average, {name} {leader.score or 0.0:.4f}")
    yield _line("intensity", f"{name} was saturated for {sums.saturated_s:.1f} of its {sums.busy_s:.1f} s with work")


def _total(gpus: Sequence[GpuScore], name: str) -> float:
    return sum(float(getattr(gpu.totals, name)) for gpu in gpus if gpu.totals)


def _axes(score: JobScore) -> Iterator[str]:
    meanings = {
        "compute": "the busiest pipe / its ceiling x clock / highest clock",
        "memory": "DRAM active / its ceiling",
        "network": "the busiest link and direction / its peak; earns nothing",
    }
    for name, meaning in meanings.items():
        yield _line(name, f"{words.percent(getattr(score, name))}  {meaning}")


def _ceilings(score: JobScore) -> Iterator[str]:
    found = {of_model(gpu.model).name: of_model(gpu.model) for gpu in score.gpus}
    for name, ceilings in sorted(found.items()):
        yield _line("ceilings", f"of {name}")
        for key, each in ceilings.by_key.items():
            value = f"{each.value / 1e9:g} GB/s" if key.endswith("per_s") else f"{each.value:g}"
            yield _line("", f"{key.removesuffix('_bytes_per_s'):7} {value:>10}  {each.source}")


def _label(score: JobScore) -> Iterator[str]:
    """The rules up to the first that matches; a condition that does not hold is marked."""
    yield _line("label", f"{score.label.bottleneck}, {score.label.confidence} confidence; the first rule that holds:")
    for rule, conditions in trace(score.activity):
        holds = all(good for _, good in conditions)
        said = ", ".join(text if good else f"not {text}" for text, good in conditions)
        yield _line("", f"{'->' if holds else '  '} {rule.bottleneck}: {said or 'nothing above'}")
        if holds:
            return
