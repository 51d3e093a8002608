"""Things to try, those that may win most first: pure functions over what is known of a job.

Each says what it costs today as a share of the GPU time that the job held, which is the most that it can win. They
overlap: what one wins the next no longer can. A cause that diagnosis found goes before a symptom.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from piolet.core.text import plural
from piolet.logbook.records import Diagnosis
from piolet.score.model import Factors, JobScore
from piolet.score.stages import PhaseSum, summed
from piolet.score.steps import StepTime
from piolet.score.words import percent

MOST = 3
WORTH = 0.02
"""A loss below this share of the GPU time is not worth a try."""

UNSTEADY = 1.5
"""Slow steps that take this many times the median are stalls."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What to try, why, and the share of the GPU time that it may win at most (None: not known)."""

    action: str
    why: str
    gain: float | None


def advice(score: JobScore, findings: Sequence[Diagnosis] = (), steps: StepTime | None = None) -> tuple[Advice, ...]:
    """Return at most MOST things to try: causes that were found, then losses from the largest."""
    if score.score is None or score.factors is None:
        return ()
    causes = [Advice(each.next_step, f"{each.subject}: {each.reason}", None) for each in findings]
    losses = [*_placement(score, score.factors), *_phases(score), *_intensity(score, score.factors), *_unsteady(steps)]
    worth = sorted((each for each in losses if (each.gain or 0.0) >= WORTH), key=lambda each: -(each.gain or 0.0))
    return tuple([*causes, *worth][:MOST])


def _placement(score: JobScore, factors: Factors) -> Iterator[Advice]:
    unused = [gpu for gpu in score.gpus if gpu.score is not None and not gpu.used]
    yield Advice(
        "ask for fewer GPUs, or start a rank for each: see how ranks are placed and CUDA_VISIBLE_DEVICES",
        f"{plural(len(unused), 'GPU')} of {len(score.gpus)} never worked",
        1 - factors.used,
    )
    behind = ", ".join(score.laggards[:MOST]) or "the others"
    throttled = sum(gpu.throttled_s > 0 for gpu in score.gpus)
    hot = f"; {plural(throttled, 'GPU')} slowed down by heat or power" if throttled else ""
    yield Advice(
        "see whether these GPUs have less work or are slower: swap the node, or balance stages and sequence lengths",
        f"{behind} stay behind the leading GPU{hot}",
        factors.used * factors.busy * (1 - factors.balance),
    )


_OF_PHASES = {
    "start-up": "start faster: stage the data and the container on the node, cache compiled kernels, import less",
    "checkpoint": "write checkpoints in the background, sharded and less often (`piolet data ckpt` says how often)",
    "stall": "find what every GPU waits for then: a slow file system, an evaluation on one rank, a lagging loader",
    "tail": "end the job when the program is done: save and upload results in a job without GPUs",
    "slower": "compare the slower stretch with the rest: clocks, other jobs on the file system, longer sequences",
}


def _phases(score: JobScore) -> Iterator[Advice]:
    for phase in summed(score.phases):
        for name, action in _OF_PHASES.items():
            if name in phase.name.lower():
                yield Advice(action, _took(phase), phase.share * _lost(phase, score))


def _took(phase: PhaseSum) -> str:
    times = f"{phase.count} times, " if phase.count > 1 else ""
    return f"{phase.name}: {times}{percent(phase.share)} of the job" + (f", {phase.evidence}" if phase.evidence else "")


def _lost(phase: PhaseSum, score: JobScore) -> float:
    """The share of a phase that is lost against steady state."""
    steady = max(score.steady or 0.0, score.score or 0.0)
    return 1 - min((phase.score or 0.0) / steady, 1.0) if steady else 0.0


def _intensity(score: JobScore, factors: Factors) -> Iterator[Advice]:
    gain = factors.used * factors.busy * factors.balance * (1 - factors.intensity)
    yield Advice(score.label.advice, f"{score.label.bottleneck}: {score.label.evidence}", gain)


def _unsteady(steps: StepTime | None) -> Iterator[Advice]:
    if steps and steps.p50_s > 0 and steps.p90_s >= UNSTEADY * steps.p50_s:
        yield Advice(
            "see what slow steps have in common: checkpoints, evaluation, a shared file system, long sequences",
            f"one step in ten takes {steps.p90_s / steps.p50_s:.1f} times the median or more",
            0.1 * (1 - steps.p50_s / steps.p90_s),
        )


def gain(found: Advice) -> str:
    """Return what a thing to try may win; a cause that was found speaks for itself."""
    return "the cause that diagnosis found" if found.gain is None else f"up to {percent(found.gain)} of the GPU time"
