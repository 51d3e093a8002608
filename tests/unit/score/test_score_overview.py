from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import made_logbooks
import pytest

from piolet.core.nouns import CheckResult, Status
from piolet.logbook.layout import Logbook
from piolet.logbook.reader import read
from piolet.logbook.records import NodeAllocation, Refusal, Request
from piolet.score.overview import Role, environment, node_stories, open_overview, overview


def held(*names: str, unused: tuple[str, ...] = ()) -> tuple[NodeAllocation, ...]:
    return tuple(NodeAllocation(name, used=name not in unused) for name in names)


def test_a_spare_takes_the_place_of_a_refused_node() -> None:
    job = made_logbooks.job(
        request=Request(2, spares=2),
        allocation=held("n1", "n2", "n3", "n4", unused=("n2", "n4")),
        refused=(Refusal("n2", "Xid 79"),),
    )
    checks = [
        CheckResult("xid", "n2", Status.FAIL, "Xid 79"),
        CheckResult("ecc", "n2", Status.PASS, "none"),
        CheckResult("ecc", "n1", Status.UNKNOWN, "no answer"),
    ]
    first, refused, spare, freed = node_stories(job, checks)
    assert (first.role, first.passed, first.not_passed) == (Role.USED, 0, ("ecc: no answer",))
    assert (refused.role, refused.reason, refused.passed) == (Role.REFUSED, "Xid 79", 1)
    assert (spare.role, spare.took_place_of) == (Role.SPARE_USED, "n2")
    assert (freed.role, freed.took_place_of) == (Role.SPARE_FREED, "")


def test_a_refused_node_that_is_no_longer_allocated_is_told_too() -> None:
    job = made_logbooks.job(request=Request(1), allocation=held("n1"), refused=(Refusal("n9", "silent"),))
    assert [(story.node, story.role) for story in node_stories(job, [])] == [("n1", Role.USED), ("n9", Role.REFUSED)]


def test_the_quality_of_the_training_job(training: Logbook) -> None:
    view = open_overview(training)
    missing = {(each.node, each.family): each.missing_s for each in view.quality.coverage}
    assert missing["node3", "gpu"] == pytest.approx(7, abs=0.1)
    assert missing["node1", "gpu"] == 0.0
    assert view.quality.agent_restarts == (("node3", 1),)
    assert "host.cpu_pressure_ratio" in view.never_collected
    assert "gpu.c2c_rx_bytes_per_s" in view.never_collected
    assert "gpu.sm_active_ratio" not in view.never_collected
    assert ("workdir", "/work", "demo.toml:4") in view.environment
    assert [key for key, _, _ in view.environment if "sha256" in key] == ["image.sha256"]


def test_torn_segments_and_a_torn_environment_are_named(training: Logbook, tmp_path: Path) -> None:
    copy = Logbook(Path(shutil.copytree(training.path, tmp_path / "copy")))
    (copy.telemetry / "gpu" / "node1-000099.parquet").write_bytes(b"PAR1 torn")
    copy.environment_lock.write_text('{"half":')
    view = open_overview(copy)
    assert [path.name for path in view.quality.torn] == ["node1-000099.parquet"]
    assert view.environment[0][0] == "unreadable"
    assert view.score.score == pytest.approx(open_overview(training).score.score)


def test_a_running_job_has_a_quality_so_far(tmp_path: Path) -> None:
    job = made_logbooks.job(("n1", "n2"), program_ended_ns=None)
    rows = [each for each in made_logbooks.constant(job, 20, tensor_active=0.5, dram_active=0.1)
            if each[1]["node"] == "n1" or int(str(each[1]["time_ns"])) < made_logbooks.START_NS + 10**10]  # fmt: skip
    view = open_overview(made_logbooks.write(tmp_path, job, rows))
    assert view.outcome is None
    assert {each.node: round(each.missing_s) for each in view.quality.coverage if each.family == "gpu"} == {
        "n1": 0,
        "n2": 10,
    }


def test_without_any_sample_everything_is_unknown(tmp_path: Path) -> None:
    view = open_overview(made_logbooks.write(tmp_path, replace(made_logbooks.job(), program_ended_ns=None), []))
    assert view.never_collected == ("gpu (no sample at all)", "host (no sample at all)", "user (no sample at all)")
    assert view.quality.coverage == ()
    assert environment(view.logbook) == ()


def test_records_that_are_links_to_the_files_of_others_are_not_read(training: Logbook, tmp_path: Path) -> None:
    copy = Logbook(Path(shutil.copytree(training.path, tmp_path / "copy")))
    for path in (copy.outcome, copy.environment_lock, *copy.vet.glob("*.jsonl"), *copy.verified.glob("*.jsonl")):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    with read(copy, owner=os.geteuid()) as reader:
        view = overview(reader)
    assert (view.outcome, view.environment, view.verified) == (None, (), ())
    assert sum(story.passed for story in view.nodes) == 0
