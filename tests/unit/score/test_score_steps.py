from __future__ import annotations

import made_logbooks
import pytest

from piolet.score.steps import StepTime, between, step_time


def _user(second: float, name: str, value: float, step: int | None = None, rank: int | None = 0) -> dict[str, object]:
    time_ns = made_logbooks.START_NS + round(second * made_logbooks.SECOND_NS)
    return {"time_ns": time_ns, "node": "node1", "rank": rank, "name": name, "value": value, "step": step}


def _step_time(*rows: dict[str, object]) -> StepTime | None:
    with made_logbooks.in_memory([("user", row) for row in rows]) as reader:
        return step_time(reader)


def test_what_the_program_says_goes_first() -> None:
    said = [_user(index, "step_time_s", 1 + index / 10, step=index) for index in range(11)]
    found = _step_time(*said, _user(3, "step_time_s", float("inf"), step=3))
    assert found is not None
    assert (found.p10_s, found.p50_s, found.p90_s) == (pytest.approx(1.1), pytest.approx(1.5), pytest.approx(1.9))
    assert (found.count, found.told) == (11, True)


def test_else_the_times_of_the_steps_of_rank_0_tell() -> None:
    rows = [_user(2.5 * step, "loss", 0.5, step=step) for step in range(0, 120, 10)]
    other = [_user(7 * step, "loss", 0.5, step=step, rank=1) for step in range(1, 200)]
    found = _step_time(*rows, *other)
    assert found == StepTime(2.5, 2.5, 2.5, 11, told=False)


def test_too_few_steps_say_nothing() -> None:
    assert _step_time(*[_user(step, "loss", 0.5, step=step) for step in range(10)]) is None
    assert _step_time(_user(1, "loss", 0.5)) is None


def test_a_restart_from_a_checkpoint_counts_for_no_step() -> None:
    assert between([(10, 0), (20, 10**10), (15, 30 * 10**9), (16, 31 * 10**9)]) == [1.0, 1.0]
