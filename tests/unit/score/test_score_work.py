from __future__ import annotations

from collections.abc import Sequence

import made_logbooks
import pytest

from piolet.core.errors import UsageError
from piolet.score import score_job
from piolet.score.work import Work, mfu, parse_parameters, work

Rows = list[tuple[str, dict[str, object]]]


def told(name: str, values: Sequence[float], *, rank: int = 0, every_s: float = 2.0) -> Rows:
    """Values of steps 0, 1, ..., one every two seconds."""
    return [
        (
            "user",
            {
                "time_ns": made_logbooks.START_NS + round(step * every_s * made_logbooks.SECOND_NS),
                "node": "node1",
                "rank": rank,
                "name": name,
                "value": value,
                "step": step,
            },
        )
        for step, value in enumerate(values)
    ]


def work_of(rows: Rows, *, gpus: int = 2, parameters: float | None = None, **columns: float) -> Work:
    record = made_logbooks.job(gpus=gpus, seconds=20)
    samples = made_logbooks.constant(record, 20, tensor_active=0.5, dram_active=0.1, **columns)
    with made_logbooks.in_memory([*samples, *rows]) as reader:
        return work(reader, score_job(reader, record), parameters)


def test_tokens_of_all_ranks_count_and_the_first_step_only_starts_the_clock() -> None:
    found = work_of([*told("tokens", [1000.0] * 6), *told("tokens", [1000.0] * 6, rank=1)], power_w=400.0)
    assert found.tokens == 12_000
    assert found.tokens_per_s == pytest.approx(1000)
    assert found.energy_per_token_j == pytest.approx(0.8)
    assert found.mfu is None


def test_mfu_is_six_flop_per_parameter_and_token() -> None:
    found = work_of(told("tokens", [1000.0] * 6), parameters=7e9)
    assert found.tokens_per_s == pytest.approx(500)
    assert found.mfu == pytest.approx(6 * 7e9 * 500 / (2 * 989e12))
    assert not found.mfu_told
    told_size = work_of([*told("tokens", [1000.0] * 6), *told("parameters", [7e9])])
    assert told_size.mfu == found.mfu


def test_what_the_program_prints_is_taken_as_it_is() -> None:
    found = work_of([*told("gpu_tokens_per_s", [6900.0, 7000.0, 7100.0]), *told("mfu_ratio", [0.4, 0.4])])
    assert found.tokens_per_s == pytest.approx(14_000)
    assert found.mfu == pytest.approx(0.4)
    assert found.mfu_told


def test_nothing_is_guessed() -> None:
    assert work_of([]) == Work()
    assert work_of(told("tokens", [1000.0]), parameters=7e9).mfu is None
    assert mfu(7e9, 1000.0, ["NVIDIA H100 80GB HBM3", "a GPU that nobody knows"]) is None
    assert mfu(7e9, 1000.0, []) is None


@pytest.mark.parametrize(("text", "number"), [("7B", 7e9), ("350m", 3.5e8), ("1.3e9", 1.3e9), ("1T", 1e12)])
def test_parameters_as_people_write_them(text: str, number: float) -> None:
    assert parse_parameters(text) == number


@pytest.mark.parametrize("text", ["", "B", "seven", "-7B", "0", "nan", "inf"])
def test_what_is_no_number_of_parameters(text: str) -> None:
    with pytest.raises(UsageError, match="not a number of parameters"):
        parse_parameters(text)
