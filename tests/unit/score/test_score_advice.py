from __future__ import annotations

import dataclasses

import made_logbooks
import pytest

from piolet.core.nouns import Severity
from piolet.logbook.layout import Logbook
from piolet.logbook.records import Diagnosis
from piolet.score import JobScore, score_job
from piolet.score.advice import MOST, WORTH, advice
from piolet.score.overview import open_overview
from piolet.score.steps import StepTime

CAUSE = Diagnosis(
    "thermal", "hot", Severity.WARNING, 0.9, 1, 2, "slowed down at 88 °C", "clean the fans", "", ("node5",), 2
)


def job(*, idle: int = 0, tensor: float = 0.93) -> JobScore:
    record = made_logbooks.job(gpus=4, seconds=20)
    rows = made_logbooks.constant(record, 20, tensor_active=tensor, sm_active=0.9, dram_active=0.1)
    quiet = [
        (family, row | {"tensor_active_ratio": 0.0, "sm_active_ratio": 0.0, "dram_active_ratio": 0.0})
        if int(str(row["gpu"])) < idle
        else (family, row)
        for family, row in rows
    ]
    with made_logbooks.in_memory(quiet) as reader:
        return score_job(reader, record)


def test_the_largest_loss_comes_first() -> None:
    first, second = advice(job(idle=2, tensor=0.465))
    assert first.why == "2 GPUs of 4 never worked"
    assert first.gain == pytest.approx(0.5)
    assert "tensor" in second.why
    assert second.gain == pytest.approx(0.5 * 0.9 * (1 - 0.5 / 0.9))  # used x busy x what intensity lacks


def test_a_job_at_its_limit_needs_none() -> None:
    assert advice(job()) == ()


def test_a_cause_goes_before_every_symptom_and_there_are_never_more_than_three() -> None:
    found = advice(job(idle=2, tensor=0.3), (CAUSE, CAUSE, CAUSE, CAUSE))
    assert len(found) == MOST
    assert found[0].action == "clean the fans"
    assert found[0].gain is None
    assert found[0].why == "node5:2: slowed down at 88 °C"


def test_slow_steps_are_worth_a_look() -> None:
    (only,) = advice(job(), steps=StepTime(0.9, 1.0, 3.0, 100, told=True))
    assert "3.0 times the median" in only.why


def test_a_job_without_a_score_gets_no_advice_out_of_thin_air() -> None:
    assert advice(dataclasses.replace(job(), score=None)) == ()


def test_phases_are_told_with_what_they_cost(training: Logbook) -> None:
    found = open_overview(training).advice
    assert len(found) == MOST
    assert any(each.why.startswith("start-up: 12") for each in found)
    assert all(WORTH <= (each.gain or 0) <= 1 for each in found)
    assert [each.gain for each in found] == sorted((each.gain or 0 for each in found), reverse=True)
