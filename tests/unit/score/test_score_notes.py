"""Bad input: the report says what it cannot know, and the score stays what the good part of the data says."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import made_logbooks
import pytest
from markupsafe import escape

from piolet.cli.main import run_command
from piolet.core.nouns import Gpu
from piolet.logbook.records import JobRecord, NodeAllocation
from piolet.score import JobScore, score_job, write_report

Rows = list[tuple[str, dict[str, object]]]
HALF = {"tensor_active": 0.465, "dram_active": 0.1, "sm_clock_hz": 1.98e9, "sm_clock_max_hz": 1.98e9}


def scored(record: JobRecord, rows: Iterable[tuple[str, dict[str, object]]]) -> JobScore:
    with made_logbooks.in_memory(list(rows)) as reader:
        return score_job(reader, record)


def scored_on_a_page(path: Path, record: JobRecord, rows: Iterable[tuple[str, dict[str, object]]]) -> JobScore:
    """Return the score, whose notes are on the page as well."""
    score = scored(record, rows := list(rows))
    page = write_report(made_logbooks.write(path, record, rows)).read_text(encoding="utf-8")
    assert all(str(escape(note)) in page for note in score.notes)
    return score


def note_of(score: JobScore) -> str:
    (note,) = score.notes
    return note


def test_slices_of_a_gpu_are_named(tmp_path: Path) -> None:
    held = (NodeAllocation("node1", (Gpu(0, "MIG-1c4f", made_logbooks.H100), Gpu(1, "MIG-77aa", made_logbooks.H100))),)
    record = made_logbooks.job(seconds=20, allocation=held)
    rows = made_logbooks.constant(record, 20, **HALF)
    slices: Rows = [(family, row | {"uuid": "MIG-1c4f" if row["gpu"] == 0 else "MIG-77aa"}) for family, row in rows]
    score = scored_on_a_page(tmp_path, record, slices)
    assert note_of(score) == "2 GPUs are MIG slices: the ceilings are those of a whole GPU, so they score too low."
    assert score.score == pytest.approx(0.5)


def test_a_gpu_that_was_reset_is_named_and_its_energy_counts_on(tmp_path: Path) -> None:
    record = made_logbooks.job(seconds=20)
    rows = made_logbooks.constant(record, 20, **HALF)
    counted: Rows = [
        (family, row | {"energy_j": (5000 + 100 * at) if at < 10 else 100 * (at - 10)})
        for at, (family, row) in enumerate(rows)
    ]
    score = scored_on_a_page(tmp_path, record, counted)
    assert note_of(score).startswith("node1:0: counters began again, as after a reset")
    assert score.energy_j == pytest.approx(900 + 900)


def test_samples_of_two_sources_are_told_and_averaged() -> None:
    record = made_logbooks.job(seconds=20)
    rows = made_logbooks.constant(record, 20, **HALF)
    other: Rows = [(family, row | {"source": "dcgm", "tensor_active_ratio": 0.279}) for family, row in rows]
    score = scored(record, [*rows, *other])
    assert any("2 sources, which need not agree: dcgm, nvml" in note for note in score.notes)
    assert any("20 seconds of a GPU had more samples than were due" in note for note in score.notes)
    assert score.score == pytest.approx((0.465 + 0.279) / 2 / 0.93)


def test_samples_under_two_drivers_are_told(tmp_path: Path) -> None:
    record = made_logbooks.job(("node1", "node2", "node3"), seconds=20)
    facts: Rows = [
        ("inventory", {"time_ns": made_logbooks.START_NS, "node": node, "device": "node", "name": name, "value": value})
        for node, driver in (("node1", "550.54.15"), ("node2", "570.86.10"), ("node3", "550.54.15"))
        for name, value in (("nvidia_driver", driver), ("kernel", node))
    ]
    rows = [*made_logbooks.constant(record, 20, **HALF), *facts]
    said = "Not every sample was taken under the same driver: 550.54.15 on node[1,3], 570.86.10 on node2."
    assert note_of(scored(record, rows)) == f"{said} Their counters need not agree."
    assert said in write_report(made_logbooks.write(tmp_path, record, rows)).read_text(encoding="utf-8")


def test_a_clock_that_was_set_back_is_told_and_counts_no_second_twice(tmp_path: Path) -> None:
    record = made_logbooks.job(seconds=20)
    rows = made_logbooks.constant(record, 20, **HALF)
    again = [(family, row | {"time_ns": int(str(row["time_ns"])) + 300_000_000}) for family, row in rows[8:13]]
    score = scored_on_a_page(tmp_path, record, [*rows, *again])
    assert note_of(score).startswith("5 seconds of a GPU had more samples than were due")
    assert score.gpus[0].totals is not None
    assert score.gpus[0].totals.observed_s == pytest.approx(20)
    assert score.score == pytest.approx(0.5)


def test_a_node_that_was_not_recorded_lowers_the_coverage_and_is_named() -> None:
    record = made_logbooks.job(("node1", "node2", "node3"), gpus=2, seconds=20)
    rows = made_logbooks.constant(record, 20, **HALF)
    score = scored(record, [(family, row) for family, row in rows if row["node"] == "node1"])
    assert note_of(score) == (
        "4 GPUs of 6 gave no activity counters, among them all of node[2-3]; the score is about the others."
    )
    assert score.coverage_ratio == pytest.approx(1 / 3)
    assert score.score == pytest.approx(0.5)


def test_a_clock_far_off_is_named() -> None:
    record = made_logbooks.job(("node1", "node2"), seconds=20)
    clocks: Rows = [
        ("clock", {"time_ns": made_logbooks.START_NS, "node": node, "reference": "utc", "offset_s": offset})
        for node, offset in (("node1", 0.002), ("node2", -4.5))
    ]
    score = scored(record, [*made_logbooks.constant(record, 20, **HALF), *clocks])
    assert note_of(score) == "The clock of node2 was over 1 s off: its samples stand beside the others'."


def test_a_job_of_two_seconds_is_a_hint(tmp_path: Path) -> None:
    record = made_logbooks.job(seconds=2)
    assert note_of(scored_on_a_page(tmp_path, record, made_logbooks.constant(record, 2, **HALF))) == (
        "The job ran for 2.0 s: its numbers rest on a handful of samples."
    )


def test_a_torn_segment_is_left_out_and_named(tmp_path: Path) -> None:
    record = made_logbooks.job(("node1", "node2"), seconds=30)
    logbook = made_logbooks.write(tmp_path, record, made_logbooks.constant(record, 30, **HALF))
    torn = next(logbook.family("gpu").glob("node2-*.parquet"))
    torn.write_bytes(torn.read_bytes()[:-7])
    page = write_report(logbook).read_text(encoding="utf-8")
    assert f"<dt>Segments that could not be read</dt><dd><code>{torn.name}</code>" in page
    assert "among them all of node2; the score is about the others" in page


def test_what_the_reader_or_the_recorder_may_not_read_is_named() -> None:
    record = made_logbooks.job(("node1", "node2"), seconds=30)
    untold = "energy: no energy counter can be read;   where: /sys/class/powercap"
    event = {"kind": "collector", "code": "unavailable", "severity": "warning", "message": untold, "node": "node1"}
    rows = [*made_logbooks.constant(record, 30, **HALF), ("events", {"time_ns": made_logbooks.START_NS, **event})]
    with tempfile.TemporaryDirectory() as name:
        logbook = made_logbooks.write(Path(name), record, rows)
        hidden = next(logbook.family("gpu").glob("node2-*.parquet"))
        for path in (Path(name), *Path(name).rglob("*")):
            path.chmod(0o600 if path == hidden else 0o777 if path.is_dir() else 0o644)
        done = _as_nobody("score", logbook.path, "--html", Path(name) / "page.html")
        assert done.returncode == 0, done.stderr
        page = (Path(name) / "page.html").read_text(encoding="utf-8")
        logbook.job.chmod(0o600)
        refused = _as_nobody("score", logbook.path)
    assert f"<dt>Segments that could not be read</dt><dd><code>{hidden.name}</code>" in page
    assert "among them all of node2; the score is about the others" in page
    assert "<dt>energy not collected</dt><dd>no energy counter can be read" in page
    assert refused.returncode == 3
    assert "cannot read" in refused.stderr
    assert str(logbook.job) in refused.stderr


def _as_nobody(*words: object) -> subprocess.CompletedProcess[str]:
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    argv = [*become, sys.executable, "-m", "piolet", *map(str, words)]
    environ = os.environ | {"HOME": "/nonexistent", "PIOLET_SITE_CONFIG": os.devnull}
    return subprocess.run(argv, env=environ, check=False, capture_output=True, text=True, timeout=100)


def test_explain_shows_sums_ceilings_and_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = made_logbooks.job(gpus=2, seconds=20)
    rows = made_logbooks.constant(record, 20, **HALF)
    half = [(family, row if row["gpu"] == 0 else row | {"tensor_active_ratio": 0.186}) for family, row in rows]
    logbook = made_logbooks.write(tmp_path, record, half)
    assert run_command(["score", "explain", str(logbook.path)]) == 0
    shown = capsys.readouterr().out
    for part in (
        "score       0.3497 = used 1.0000 x busy 0.4998 x balance 0.6996 x intensity 1.0000",
        "14.0 saturated of 40.0 GPU-seconds",
        "node1:0 leads and had work for 10.0 of 20.0 s",
        "ceilings    of H100",
        "dcgmproftester's tensor load",
        "not highest activity 0.33 < 0.05",
    ):
        assert part in shown
    assert shown.count("->") == 1


def test_explain_without_a_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logbook = made_logbooks.write(tmp_path, made_logbooks.job(), [])
    assert run_command(["score", "explain", str(logbook.path)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("There is no score.")
    assert "not known   No GPU sample was recorded" in shown


def test_a_weighed_view_is_drawn_first_and_says_what_it_is(tmp_path: Path) -> None:
    record = made_logbooks.job(seconds=20)
    rows = made_logbooks.constant(record, 20, **HALF, nvlink_tx_bytes_per_s=90e9)
    logbook = made_logbooks.write(tmp_path, record, rows)
    page = tmp_path / "page.html"
    assert run_command(["score", str(logbook.path), "--weights", "compute=3,network=1", "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    first = text.index("Weighed, not the score: compute 75\u00a0%, network 25\u00a0%")
    assert first < text.index("Saturation (the higher of compute and memory)")
    assert "42\u00a0% on average" in text[first : first + 200]
    assert "anything from 12\u00a0% (memory alone) to 50\u00a0% (compute alone)" in text
