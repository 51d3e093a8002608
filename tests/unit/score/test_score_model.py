from __future__ import annotations

import pytest

from piolet.score.model import Factors, GpuTotals, factorise, mean_saturation


def totals(saturated_s: float, busy_s: float, observed_s: float = 100.0, peak_busy: float = 1.0) -> GpuTotals:
    return GpuTotals(observed_s, saturated_s, busy_s, peak_busy)


def test_factors_tell_where_the_time_went() -> None:
    # Two GPUs idle, one ahead, one at half of it; the leading one had work for 80 s at 0.75.
    gpus = [totals(60, 80), totals(30, 80), totals(0, 0, peak_busy=0), totals(0, 0, peak_busy=0)]
    factors = factorise(gpus)
    assert factors is not None
    assert factors == Factors(used=0.5, busy=0.8, balance=pytest.approx(0.75), intensity=0.75)
    assert factors.product == pytest.approx(mean_saturation(gpus))
    assert mean_saturation(gpus) == pytest.approx(90 / 400)


def test_a_gpu_that_works_alone_is_imbalance_and_not_idleness() -> None:
    factors = factorise([totals(50, 100), totals(12.5, 25), totals(12.5, 25), totals(12.5, 25)])
    assert factors is not None
    assert factors.busy == 1.0
    assert factors.balance == pytest.approx(0.4375)


def test_missing_seconds_do_not_lower_the_score() -> None:
    whole = mean_saturation([totals(50, 80), totals(50, 80)])
    assert mean_saturation([totals(50, 80), totals(25, 40, observed_s=50)]) == whole


def test_a_flicker_below_five_per_cent_is_not_use() -> None:
    gpus = [totals(4, 4, peak_busy=0.049)]
    assert mean_saturation(gpus) == 0.0
    assert factorise(gpus) == Factors(used=0.0, busy=0.0, balance=0.0, intensity=0.0)


def test_work_without_saturation_has_a_product_of_zero() -> None:
    factors = factorise([totals(0, 50)])
    assert factors == Factors(used=1.0, busy=0.5, balance=1.0, intensity=0.0)


def test_nothing_observed_is_no_score_instead_of_zero() -> None:
    assert factorise([]) is None
    assert mean_saturation([totals(0, 0, observed_s=0)]) is None
    assert totals(0, 0, observed_s=0).score is None
