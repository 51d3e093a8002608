from __future__ import annotations

import pytest

from piolet.score.startup import startup_s


def found(values: list[float], bin_s: float = 1.0) -> float:
    return startup_s([bin_s * number for number in range(len(values))], values, bin_s)


def test_the_first_long_low_phase_is_startup() -> None:
    assert found([0.02] * 30 + [0.6] * 100) == 30


def test_a_spike_while_loading_does_not_end_it() -> None:
    assert found([0.02] * 10 + [0.7] * 2 + [0.02] * 18 + [0.6] * 100) == 30


def test_a_dip_right_after_does_not_prolong_it() -> None:
    assert found([0.02] * 30 + [0.6, 0.6, 0.1, 0.6, 0.6] * 20) == 30


def test_a_published_startup_of_160_seconds_is_found() -> None:
    assert found([0.01] * 160 + [0.5] * 300) == 160


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="no samples"),
        pytest.param([0.6] * 50, id="busy at once"),
        pytest.param([0.0] * 3 + [0.6] * 50, id="too short to matter"),
        pytest.param([0.01] * 100, id="never busy"),
        pytest.param([0.5] * 50 + [0.0] * 40, id="low at the end"),
    ],
)
def test_there_may_be_none(values: list[float]) -> None:
    assert found(values) == 0.0


def test_the_bin_width_counts() -> None:
    assert found([0.02] * 3 + [0.6] * 20, bin_s=10.0) == 30
