"""What must hold of the score for any samples at all; S is recomputed here straight from its definition."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

import made_logbooks
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from piolet.logbook.layout import create
from piolet.logbook.reader import read
from piolet.logbook.writer import SegmentWriter
from piolet.score import JobScore, score_job
from piolet.score.model import IDLE_RATIO, GpuTotals, factorise, mean_saturation

GPUS = 3
PIPES = {"tensor_active": 0.93, "fp64_active": 1.0, "fp32_active": 1.0, "fp16_active": 1.0}
CLOCK_MAX_HZ = 2_000_000_000

ratios = st.integers(0, 256).map(lambda steps: steps / 256)  # what the recorder keeps as it is
samples = st.fixed_dictionaries(
    dict.fromkeys((*PIPES, "dram_active", "gr_engine_active"), ratios)
    | {"sm_clock_hz": st.integers(500, 2000).map(lambda mhz: mhz * 1_000_000)}
)
traces = st.lists(st.lists(st.none() | samples, min_size=GPUS, max_size=GPUS), min_size=1, max_size=8)
quick = settings(max_examples=30, deadline=None)
Trace = list[list[dict[str, float] | None]]
Rows = list[tuple[str, dict[str, object]]]


def rows_of(trace: Trace) -> Rows:
    return [
        ("gpu", made_logbooks.row("node1", index, second + 0.5, sm_clock_max_hz=CLOCK_MAX_HZ, **sample))
        for second, gpus in enumerate(trace)
        for index, sample in enumerate(gpus)
        if sample is not None
    ]


def score_of(rows: Rows, seconds: int) -> JobScore:
    with made_logbooks.in_memory(rows) as reader:
        return score_job(reader, made_logbooks.job(gpus=GPUS, seconds=seconds))


def on_the_edge(trace: Trace) -> bool:
    """Whether single precision may decide if a GPU was used."""
    return any(
        abs(max(saturation(sample), sample["gr_engine_active"]) - IDLE_RATIO) < 1e-6
        for gpus in trace
        for sample in gpus
        if sample
    )


def saturation(sample: dict[str, float]) -> float:
    compute = max(sample[pipe] / ceiling for pipe, ceiling in PIPES.items()) * sample["sm_clock_hz"] / CLOCK_MAX_HZ
    return max(min(compute, 1.0), min(sample["dram_active"] / 0.80, 1.0))


def expected(trace: Trace) -> float | None:
    observed = [[sample for gpus in trace if (sample := gpus[index]) is not None] for index in range(GPUS)]
    if not any(observed):
        return None
    used = [each for each in observed if any(max(saturation(s), s["gr_engine_active"]) >= IDLE_RATIO for s in each)]
    return sum(saturation(s) for each in used for s in each) / sum(len(each) for each in observed)


@quick
@given(traces)
def test_the_score_is_the_mean_over_observed_gpu_seconds_and_its_factors_multiply_to_it(trace: Trace) -> None:
    assume(not on_the_edge(trace))
    score = score_of(rows_of(trace), len(trace))
    assert score.score == (None if expected(trace) is None else pytest.approx(expected(trace), abs=1e-5))
    if score.factors is not None:
        factors = (score.factors.used, score.factors.busy, score.factors.balance, score.factors.intensity)
        assert all(0 <= factor <= 1 for factor in factors)
        assert score.factors.product == pytest.approx(score.score, abs=1e-9)


@quick
@given(traces, st.sampled_from([*PIPES, "dram_active"]), ratios, st.randoms(use_true_random=False))
def test_more_activity_never_lowers_the_score(trace: Trace, column: str, more: float, chance: Random) -> None:
    raised = [
        [
            sample and (sample | {column: max(sample[column], more)} if chance.random() < 0.5 else sample)
            for sample in gpus
        ]
        for gpus in trace
    ]
    before, after = score_of(rows_of(trace), len(trace)).score, score_of(rows_of(raised), len(trace)).score
    assert (before is None) == (after is None)
    assert (after or 0.0) >= (before or 0.0) - 1e-9


@quick
@given(traces, st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_matter(trace: Trace, chance: Random) -> None:
    rows = rows_of(trace)
    shuffled = rows.copy()
    chance.shuffle(shuffled)
    ordered, mixed = score_of(rows, len(trace)), score_of(shuffled, len(trace))
    assert mixed.score == (None if ordered.score is None else pytest.approx(ordered.score, abs=1e-9))
    assert mixed.coverage_ratio == ordered.coverage_ratio


@given(traces, st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_splitting_a_job_into_segments_does_not_matter(trace: Trace, data: st.DataObject) -> None:
    assume(not on_the_edge(trace))
    rows = rows_of(trace)
    record = made_logbooks.job(gpus=GPUS, seconds=len(trace))
    with tempfile.TemporaryDirectory() as directory:
        logbook = create(Path(directory), "lab", "1")
        writer = SegmentWriter(logbook, "node1")
        for family, values in rows:
            writer.append(family, values)
            if data.draw(st.booleans()):
                writer.flush()
        writer.flush()
        with read(logbook) as reader:
            split = score_job(reader, record)
    whole = score_of(rows, len(trace))
    assert split.score == (None if whole.score is None else pytest.approx(whole.score, abs=1e-5))


@quick
@given(traces, st.sets(st.integers(0, 7)))
def test_losing_seconds_of_every_gpu_alike_lowers_only_the_coverage(trace: Trace, lost: set[int]) -> None:
    steady = [[dict(sample) if sample else None for sample in trace[0]]] * 8
    kept: Trace = [gpus if second not in lost else [None] * GPUS for second, gpus in enumerate(steady)]
    before, after = score_of(rows_of(steady), 8), score_of(rows_of(kept), 8)
    assert (after.coverage_ratio or 0.0) <= (before.coverage_ratio or 0.0)
    if before.score is not None and len(lost) < 8:
        assert after.score == pytest.approx(before.score, abs=1e-9)


shares = st.floats(0, 1, allow_nan=False, width=32)


@given(st.lists(st.tuples(st.integers(0, 500), shares, shares), max_size=8))
def test_the_factors_multiply_to_the_score_for_any_sums(gpus: list[tuple[int, float, float]]) -> None:
    totals = [
        GpuTotals(seconds, seconds * busy * intensity, seconds * busy, busy if seconds else 0.0)
        for seconds, busy, intensity in gpus
    ]
    factors, mean = factorise(totals), mean_saturation(totals)
    assert (factors is None) == (mean is None)
    if factors is not None:
        assert factors.product == pytest.approx(mean, abs=1e-9)
        assert 0 <= factors.product <= 1
