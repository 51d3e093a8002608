from __future__ import annotations

import json
from pathlib import Path

import made_logbooks
import pytest

from piolet.cli.main import run_command
from piolet.logbook.layout import Logbook
from piolet.logbook.records import read_findings


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Logbook:
    """The whole story at full length: one GPU that is slowed down by heat, an input stall, a checkpoint."""
    return made_logbooks.training(tmp_path_factory.mktemp("slow"))


def test_diagnose_names_the_hot_gpu(slow: Logbook, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["watch", "diagnose", str(slow.path), "--save"]) == 1
    shown = capsys.readouterr().out
    assert "node5:2: GPU slowed down by heat" in shown
    assert "not enough data:" in shown
    kept = read_findings(slow.findings)
    assert kept
    assert kept.complete
    assert ("thermal-throttle", "node5:2") in {(each.rule, each.subject) for each in kept.findings}


def test_diagnose_reads_logs(slow: Logbook, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "job.out"
    log.write_text("5: torch.OutOfMemoryError: CUDA out of memory\n1: remote process exited\n")
    assert run_command(["watch", "diagnose", str(slow.path), "--log", str(log), "--format", "json"]) == 1
    (failure,) = [each for each in json.loads(capsys.readouterr().out)["findings"] if each["rule"] == "first-failure"]
    assert failure["rank"] == 5
    assert not read_findings(tmp_path / "findings.json")


def test_sql_prints_a_table_with_units(slow: Logbook, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["watch", "sql", str(slow.path), "SELECT node, power_w FROM gpu", "--rows", "2"]) == 0
    said = capsys.readouterr()
    assert "power_w [W]" in said.out
    assert "only the first 2 rows" in said.err
    assert "of the expected samples: gpu 98.2%" in said.err


def test_rows_that_are_too_wide_for_a_table_stand_one_value_a_line(
    slow: Logbook, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["watch", "sql", str(slow.path), "SELECT * FROM gpu", "--rows", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["row 1", "row 2"]
    assert ["power_w", "[W]"] in [line.split()[:2] for line in lines]


def test_sql_that_is_wrong_is_one_clear_error(slow: Logbook, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["watch", "sql", str(slow.path), "SELECT nothing FROM gpu"]) == 2
    assert "the query cannot be run" in capsys.readouterr().err


def test_quality_tells_holes_and_what_was_never_collected(slow: Logbook, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["watch", "quality", str(slow.path)]) == 0
    shown = capsys.readouterr().out
    for part in ("node3:0", "recorder restarted 1 time", "nic not available", "never collected", "nic"):
        assert part in shown
    assert run_command(["watch", "quality", str(slow.path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["restarts"] == {"node3": 1}


@pytest.mark.parametrize("verb", ["diagnose", "quality"])
def test_a_job_that_is_not_there_is_a_usage_error(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIOLET_ROOT", str(tmp_path))
    assert run_command(["watch", verb, "9"]) == 2


def test_the_schema_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["watch", "schema", "gpu"]) == 0
    assert "power_w" in capsys.readouterr().out
    assert run_command(["watch", "schema", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(meaning for rows in found["families"].values() for *_, meaning in rows)
    assert run_command(["watch", "schema", "gpux"]) == 2


def test_top_shows_every_gpu_the_step_and_the_findings(slow: Logbook, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["watch", "top", str(slow.path), "--once"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "first-climb  COMPLETED",
        "3:20 running",
        "step 199, 1 a second",
        "1. node5:2: GPU slowed down by heat",
    ):
        assert part in shown
    rows = [line for line in shown.splitlines() if line.startswith("node")]
    assert rows[0].startswith("node5")
    assert all(len(row.split()) == 5 for row in rows)


def test_top_ends_with_the_job(slow: Logbook, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["watch", "top", str(slow.path)]) == 0
    assert "COMPLETED" in capsys.readouterr().out


def test_top_of_a_job_without_samples_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logbook = made_logbooks.write(tmp_path, made_logbooks.job(program_ended_ns=None), [])
    assert run_command(["watch", "top", str(logbook.path), "--once"]) == 0
    assert "nothing was recorded yet" in capsys.readouterr().out
