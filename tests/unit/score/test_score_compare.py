from __future__ import annotations

import json
from pathlib import Path
from random import Random

import made_logbooks
import pytest

from piolet.cli.main import run_command
from piolet.core.errors import UsageError
from piolet.logbook.layout import Logbook
from piolet.score.compare import Ratio, Verdict, block_means, compare, ratio
from piolet.score.history import history
from piolet.score.weights import parse


def _trace(level: float, chance: Random, seconds: int = 600) -> list[float]:
    """A saturation whose neighbouring seconds are alike."""
    values, drift = [], 0.0
    for _ in range(seconds):
        drift = 0.8 * drift + chance.gauss(0, 0.02)
        values.append(level + drift)
    return values


def _job(root: Path, name: str, tensor: float, seconds: int = 60, gpus: int = 1) -> Logbook:
    record = made_logbooks.job(seconds=seconds, gpus=gpus, job_id=name)
    rows = made_logbooks.constant(record, seconds, tensor_active=tensor, dram_active=0.1, sm_active=0.9)
    return made_logbooks.write(root, record, rows)


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    chance = Random(7)  # noqa: S311 - noise, not secrets
    found = [ratio(_trace(0.5, chance), _trace(0.45, chance)) for _ in range(200)]
    held = sum((each.low or 0) <= 0.9 <= (each.high or 0) for each in found)
    assert 180 <= held <= 198


def test_a_schedule_that_both_follow_cancels_out() -> None:
    schedule = [0.2 + 0.6 * (second // 60 % 2) for second in range(600)]
    same = ratio(schedule, [0.9 * value for value in schedule])
    assert same.value == pytest.approx(0.9)
    assert same.high == pytest.approx(0.9, abs=1e-9)


def test_too_short_a_job_has_a_ratio_without_an_interval() -> None:
    found = ratio([0.5] * 29, [0.4] * 100)
    assert (found.value, found.low, found.blocks) == (pytest.approx(0.8), None, 0)
    assert found.verdict(0.95) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.95, 1.0, "pass"), (0.8, 0.9499, "fail"), (0.9, 0.96, "inconclusive")]
)
def test_the_verdict_needs_the_whole_interval(low: float, high: float, verdict: str) -> None:
    assert Ratio(0.93, low, high, 20).verdict(0.95) == verdict


def test_blocks_share_all_values() -> None:
    assert block_means([1, 1, 2, 2, 2, 3, 3], 3) == [1, 2, pytest.approx(8 / 3)]


def test_a_slower_job_fails_the_gate_and_an_equal_one_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, same, slow = (str(_job(tmp_path, name, level).path) for name, level in
                          (("1", 0.5), ("2", 0.5), ("3", 0.4)))  # fmt: skip
    assert run_command(["score", "compare", before, same, "--fail-below", "0.95"]) == 0
    assert "verdict     pass" in capsys.readouterr().out
    assert run_command(["score", "compare", before, slow, "--fail-below", "0.95", "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ratio"]["value"] == pytest.approx(0.8, abs=1e-3)
    assert found["verdict"] == "fail"


def test_a_job_without_a_score_cannot_be_compared(tmp_path: Path) -> None:
    empty = made_logbooks.write(tmp_path, made_logbooks.job(job_id="5"), [])
    with pytest.raises(UsageError, match="job 5 has no saturation to compare"):
        compare(_job(tmp_path, "1", 0.5), empty)


def test_history_pools_by_gpu_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    books = [_job(tmp_path, "1", 0.93, seconds=30), _job(tmp_path, "2", 0.31, seconds=45, gpus=4)]
    (tmp_path / "lab" / "3").mkdir()
    (tmp_path / "lab" / "3" / "job.json").write_text("{torn")
    found = history([book.path for book in books])
    assert found.gpu_hours == pytest.approx((30 + 45 * 4) / 3600)
    assert found.score == pytest.approx((30 * 1.0 + 180 / 3) / 210, abs=1e-3)
    assert history([book.path for book in books], user="nobody").score is None
    monkeypatch.setenv("PIOLET_ROOT", str(tmp_path))
    assert run_command(["score", "history", "--user", "ada"]) == 0
    shown = capsys.readouterr().out
    assert "2 jobs, 0.1 GPU-hours" in shown
    assert "cannot be read" in shown


def test_weights_are_another_view_and_say_so(training: Logbook, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["score", "--brief", str(training.path), "--weights", "compute=3,network=1"]) == 0
    assert "by compute 75\N{NO-BREAK SPACE}%, network 25\N{NO-BREAK SPACE}%; this is not the score" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("speed=1", '"speed" is not one more axis'),
        ("compute=1,compute=2", '"compute" is not one more axis'),
        ("compute=much", '"much" is not a weight'),
        ("compute=-1", '"-1" is not a weight'),
        ("compute=nan", '"nan" is not a weight'),
        ("compute=0", "nothing weighs anything"),
    ],
)
def test_wrong_weights_are_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        parse(text)
