from __future__ import annotations

import json
from pathlib import Path

import made_logbooks
import pytest

from piolet.cli.main import run_command
from piolet.core import plugins
from piolet.core.nouns import Severity
from piolet.logbook.records import Diagnosis, Findings
from piolet.watch import Archive, Viewer, notes
from piolet.watch.jobs import summarise
from piolet.watch.notes import Note


def test_a_note_is_kept_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logbook = made_logbooks.write(tmp_path, made_logbooks.job(), [])
    argv = ["watch", "notes", str(logbook.path)]
    assert run_command([*argv, "--add", "cooling loop B", "--rule", "thermal-throttle"]) == 0
    with (logbook.path / "notes.jsonl").open("a") as file:
        file.write('torn {"\n[]\n')
    capsys.readouterr()
    assert run_command([*argv, "--format", "json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)
    assert (note["text"], note["rule"]) == ("cooling loop B", "thermal-throttle")
    assert run_command([*argv, "--add", "x", "--rule", "thermal"]) == 2
    assert 'did you mean "thermal-throttle"?' in capsys.readouterr().err


def test_notes_are_cited_from_jobs_that_the_viewer_may_see(tmp_path: Path) -> None:
    made = {
        job_id: made_logbooks.write(tmp_path, made_logbooks.job(job_id=job_id, user=user), [])
        for job_id, user in (("1", "ada"), ("2", "bob"), ("3", "ada"))
    }
    for job_id, logbook in made.items():
        notes.add(logbook, Note(1, "olga", f"note of {job_id}", "ecc"))
    about = summarise(made["3"])
    assert about
    found = Findings(0, complete=True, findings=(Diagnosis("ecc", "", Severity.ERROR, 1.0, 0, 1, "", "", ""),))
    cited = notes.cited(found, Archive(tmp_path).seen_by(Viewer("ada")), about)
    assert cited.findings[0].notes == ("seen before in job 1: note of 1 (olga)",)


def test_entry_points_are_named_as_their_rules() -> None:
    for name, rule in plugins.load("piolet.rules").loaded.items():
        assert name.replace("_", "-") == rule.name
