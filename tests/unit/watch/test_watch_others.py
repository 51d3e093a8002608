"""What is said of a job beside other jobs: what changed, slower than its own past, a neighbour on the file system."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_logbooks
import pytest
from made_logbooks import SECOND_NS, START_NS

from piolet.cli.main import run_command
from piolet.core.files import write_json
from piolet.logbook.layout import Logbook
from piolet.logbook.records import Diagnosis, Outcome, write_outcome
from piolet.watch import Archive, Viewer
from piolet.watch.compare import Part, changes
from piolet.watch.diagnosis.diagnose import diagnose
from piolet.watch.steps import median_s

LENGTH_S = 150
Row = tuple[str, dict[str, Any]]


def of(second: float, node: str = "node1", **values: Any) -> dict[str, Any]:
    return {"time_ns": START_NS + round(second * SECOND_NS), "node": node, **values}


def rows(step_s: float = 2.0, *, stalled: bool = False, fs_bytes_per_s: float = 0.0) -> Iterator[Row]:
    """A job that steps; from second 80 to 130 it waits for I/O, if it is stalled."""
    for second in range(LENGTH_S):
        waits = stalled and 80 <= second < 130
        yield "gpu", made_logbooks.row("node1", 0, second + 0.5, sm_active=0.1 if waits else 0.8, tensor_active=0.4)
        yield (
            "host",
            of(second + 0.5, io_pressure_ratio=0.6 if waits else 0.0, cpu_iowait_ratio=0.0, cpu_busy_ratio=0.2),
        )
        yield (
            "fs",
            of(second + 0.5, fs="/scratch", kind="lustre", read_bytes_per_s=fs_bytes_per_s, write_bytes_per_s=0.0),
        )
    for step in range(int(LENGTH_S / step_s)):
        yield "user", of(step * step_s, rank=0, name="loss", value=1.0, step=step)
    for second, phase in ((0, "training"), (60, "checkpoint"), (60 + 4 * step_s, "training")):
        yield "events", of(second, kind="phase", code=phase, severity="info", message="")


def job(root: Path, job_id: str, step_s: float = 2.0, *, user: str = "ada", at_s: int = 0, **more: Any) -> Logbook:
    """A completed job; `at_s` moves the start in job.json, which is what orders the runs."""
    record = made_logbooks.job(("node1",), 1, LENGTH_S, job_id=job_id, user=user)
    logbook = made_logbooks.write(root, replace(record, started_ns=START_NS + at_s * SECOND_NS), rows(step_s, **more))
    write_outcome(logbook.outcome, Outcome("COMPLETED", 0, ended_ns=record.program_ended_ns))
    return logbook


def told(root: Path, viewer: str, job_id: str) -> dict[str, Diagnosis]:
    jobs = Archive(root).seen_by(Viewer(viewer))
    with jobs.open("lab", job_id) as book:
        found = diagnose(book, jobs=jobs)
    return {each.rule: each for each in found.findings}


def test_the_step_is_that_which_the_program_reports(tmp_path: Path) -> None:
    job(tmp_path, "1", 2.5)
    with Archive(tmp_path).seen_by(Viewer("ada")).open("lab", "1") as book:
        assert median_s(book.reader) == pytest.approx(2.5)


@pytest.mark.parametrize(("last_s", "slower"), [(2.6, True), (2.1, False)])
def test_a_job_is_held_against_its_own_past(tmp_path: Path, last_s: float, slower: bool) -> None:  # noqa: FBT001 - a parameter
    for number, step_s in enumerate((2.0, 2.05, 1.95)):
        job(tmp_path, f"{number}", step_s, at_s=number)
    job(tmp_path, "9", last_s, at_s=9)
    found = told(tmp_path, "ada", "9")
    assert ("slower-than-past" in found) is slower
    if slower:
        assert "30% longer than in the last 3 runs of it (2, 1, 0)" in found["slower-than-past"].reason


def test_anothers_runs_are_no_past(tmp_path: Path) -> None:
    for number in range(3):
        job(tmp_path, f"{number}", 2.0, user="bob", at_s=number)
    job(tmp_path, "9", 4.0, at_s=9)
    assert "slower-than-past" not in told(tmp_path, "ada", "9")


def test_the_job_that_keeps_the_file_system_busy_is_named_to_who_may_see_it(tmp_path: Path) -> None:
    job(tmp_path, "1", stalled=True, fs_bytes_per_s=1e6)
    job(tmp_path, "2", user="bob", fs_bytes_per_s=3e9)
    with Archive(tmp_path).seen_by(Viewer("ada", operator=True)).open("lab", "1") as book:
        found = diagnose(book, jobs=Archive(tmp_path).seen_by(Viewer("root", operator=True))).findings
    first = found[0]
    assert first.rule == "noisy-job"
    assert "job 2 of bob" in first.reason
    assert any("io-stall" in effect for effect in first.effects)
    mine = told(tmp_path, "ada", "1")
    assert "noisy-job" not in mine
    assert "io-stall" in mine


def test_what_changed_is_told_part_by_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = job(tmp_path, "1", 2.0), job(tmp_path, "2", 3.0)
    write_json(first.environment_lock, made_logbooks.ENVIRONMENT)
    moved = [{"key": "mounts[0]", "value": "/other:/work", "origin": "demo.toml:3"}]
    write_json(second.environment_lock, made_logbooks.ENVIRONMENT | {"values": moved})
    jobs = Archive(tmp_path).seen_by(Viewer("ada"))
    with jobs.open("lab", "1") as before, jobs.open("lab", "2") as after:
        found = {(each.part, each.name): (each.before, each.after) for each in changes(before, after)}
    assert found == {
        (Part.ENVIRONMENT, "workdir"): ("/work", "-"),
        (Part.DATA, "mounts[0]"): ("/scratch:/work", "/other:/work"),
        (Part.PHASES, "checkpoint"): ("8 s", "12 s"),
        (Part.PHASES, "a step"): ("2 s", "3 s"),
    }
    assert run_command(["watch", "compare", str(first.path), str(second.path)]) == 0
    assert "/other:/work" in capsys.readouterr().out
    assert run_command(["watch", "compare", str(first.path), str(first.path)]) == 0
    assert "nothing that is recorded differs" in capsys.readouterr().out
