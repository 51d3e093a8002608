"""Lines as training frameworks print them, written after their sources; each file is named after its framework."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.tools.training_output import FORMATS, Progress, parse

HERE = Path(__file__).parent

EXPECTED = {
    "megatron-lm": [
        Progress(10, {"loss": 10.83726, "step_time_s": 5.3124}),
        Progress(20, {"loss": 9.912345, "step_time_s": 5.2901}),
    ],
    "torchtitan": [
        Progress(1, {"loss": 8.1309, "gpu_tokens_per_s": 1203, "mfu_ratio": 0.0802}),
        Progress(10, {"loss": 7.0412, "gpu_tokens_per_s": 6911, "mfu_ratio": 0.4037}),
    ],
    "nemo": [
        Progress(0, {"loss": 11.03, "step_time_s": 58.91}),
        Progress(9, {"loss": 10.27, "step_time_s": 6.402}),
        Progress(19, {"loss": 8.611, "step_time_s": 6.377}),
    ],
    "hf-trainer": [Progress(None, {"loss": loss}) for loss in (3.2147, 2.9031, 1.75)],
    "nanogpt": [
        Progress(0, {"loss": 10.9883, "step_time_s": 22.01541}),
        Progress(10, {"loss": 10.1214, "step_time_s": 0.30177, "mfu_ratio": 0.4421}),
        Progress(20, {"loss": math.nan, "step_time_s": 0.3021, "mfu_ratio": 0.4419}),
    ],
    "plain": [Progress(25, {"loss": 0.6213}), Progress(50, {"loss": 0.312})],
}


@pytest.mark.parametrize("framework", EXPECTED)
def test_the_lines_of_a_framework_are_understood_and_others_left_alone(framework: str) -> None:
    path = HERE / f"{framework}.txt"
    found = [progress for line in path.read_text().splitlines() if (progress := parse(line))]
    assert [each.step for each in found] == [each.step for each in EXPECTED[framework]]
    for progress, expected in zip(found, EXPECTED[framework], strict=True):
        assert progress.values == pytest.approx(expected.values, nan_ok=True)


def test_each_format_has_its_lines() -> None:
    assert len(EXPECTED) == len(FORMATS) == len(list(HERE.glob("*.txt")))


@given(st.text(max_size=300), st.sampled_from(["", "step 1 loss ", "iter 3: loss ", "{'loss': ", " lm loss: "]))
def test_no_line_is_an_error(text: str, start: str) -> None:
    parsed = parse(start + text)
    assert parsed is None or parsed.values
