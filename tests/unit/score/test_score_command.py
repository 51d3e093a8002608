from __future__ import annotations

import json
from pathlib import Path

import pytest

from piolet.cli.main import run_command
from piolet.logbook.layout import Logbook


def test_the_terminal_shows_the_whole_story(training: Logbook, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["score", str(training.path)]) == 0
    shown = capsys.readouterr().out
    for part in (
        "saturation",
        "balance",
        "Bottleneck",
        "node3:1",
        "took the place of node2",
        "Xid 79",
        "7.0 s",
        "Simulated",
    ):
        assert part in shown


def test_json_is_for_programs(training: Logbook, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["score", str(training.path), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["score"] < 1
    product = 1.0
    for factor in found["factors"].values():
        product *= factor
    assert product == pytest.approx(found["score"])
    assert [node["role"] for node in found["nodes"]] == ["used", "refused", "spare, used"]
    assert found["quality"]["agent_restarts"] == [["node3", 1]]


def test_html_writes_the_report(training: Logbook, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "page.html"
    assert run_command(["score", str(training.path), "--html", str(target)]) == 0
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert str(target) in capsys.readouterr().err


def test_a_job_id_is_found_below_the_root(
    training: Logbook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIOLET_ROOT", str(training.path.parent.parent))
    monkeypatch.setenv("PIOLET_CLUSTER", training.path.parent.name)
    assert run_command(["score", "4711"]) == 0
    assert "Job 4711" in capsys.readouterr().out


def test_an_unknown_job_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIOLET_ROOT", str(tmp_path))
    assert run_command(["score", "99"]) == 2
    assert "no logbook of a job 99" in capsys.readouterr().err
