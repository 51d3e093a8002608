from __future__ import annotations

import json
import os
from pathlib import Path

import made_logbooks
import pytest

from piolet.core.errors import UsageError
from piolet.logbook.layout import Logbook
from piolet.watch import Archive, Grant, JobFilter, Viewer
from piolet.watch.archive import open_logbook
from piolet.watch.jobs import summarise

ADA, BOB = Viewer("ada"), Viewer("bob", frozenset({"climate"}))
OPERATOR = Viewer("olga", operator=True)
STRANGER = 12345


def make(root: Path, job_id: str, user: str, account: str = "", **changes: object) -> Logbook:
    record = made_logbooks.job(job_id=job_id, user=user, account=account, seconds=3.0, **changes)
    rows = made_logbooks.constant(record, 3, sm_active=0.5, power_w=400.0)
    return made_logbooks.write(root, record, rows)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make(tmp_path, "1", "ada")
    make(tmp_path, "2", "bob")
    make(tmp_path, "3", "carl", "climate")
    return tmp_path


@pytest.mark.parametrize(
    ("viewer", "seen"),
    [(ADA, {"1"}), (BOB, {"2", "3"}), (OPERATOR, {"1", "2", "3"}), (Viewer(""), set()), (Viewer("root"), set())],
)
def test_a_viewer_sees_own_and_project_jobs_only(root: Path, viewer: Viewer, seen: set[str]) -> None:
    jobs = Archive(root).seen_by(viewer)
    page = jobs.find()
    assert {job.job_id for job in page.jobs} == seen
    assert page.total == len(seen)
    for job_id in ("1", "2", "3"):
        if job_id in seen:
            jobs.open("lab", job_id).close()
        else:
            with pytest.raises(UsageError):
                jobs.open("lab", job_id)


def test_a_job_without_an_account_belongs_to_no_project(root: Path) -> None:
    assert not Archive(root).seen_by(Viewer("eve", frozenset({""}))).find().jobs


def test_a_forbidden_job_reads_like_one_that_is_not_there(root: Path) -> None:
    jobs = Archive(root).seen_by(ADA)
    said = []
    for job_id in ("2", "9"):
        with pytest.raises(UsageError) as error:
            jobs.open("lab", job_id)
        said.append(str(error.value).replace(f"lab/{job_id}", "JOB"))
    assert said[0] == said[1]


@pytest.mark.parametrize("name", ["../lab/2", "..", ".", "", "2/../2", "/etc", "*"])
def test_a_job_is_named_by_plain_names(root: Path, name: str) -> None:
    for cluster, job_id in (("lab", name), (name, "2")):
        with pytest.raises(UsageError):
            Archive(root).seen_by(OPERATOR).open(cluster, job_id)


def test_nobody_makes_grants_but_admit(root: Path) -> None:
    job = summarise(Logbook(root / "lab" / "2"))
    assert job
    with pytest.raises(TypeError, match="only admit"):
        Grant(ADA, job, object())


@pytest.fixture
def mallory(root: Path) -> Logbook:
    """A logbook whose files belong to a user that this machine does not know; it claims to be ada's."""
    if os.geteuid() != 0:
        pytest.skip("giving files to another user needs root")
    logbook = make(root, "66", "ada")
    for path in (logbook.path, *logbook.path.rglob("*")):
        os.chown(path, STRANGER, STRANGER)
    return logbook


def test_whose_job_it_is_the_kernel_says(root: Path, mallory: Logbook) -> None:
    assert {job.job_id for job in Archive(root).seen_by(ADA).find().jobs} == {"1"}
    with Archive(root).seen_by(Viewer(f"uid {STRANGER}")).open("lab", mallory.path.name) as book:
        assert book.table("gpu").relation.fetchall()


def test_links_to_others_files_open_nothing(root: Path, mallory: Logbook) -> None:
    victim = Logbook(root / "lab" / "2")
    segment = next(victim.family("gpu").iterdir())
    os.chown(segment, STRANGER + 1, -1)
    for path in mallory.family("gpu").iterdir():
        path.unlink()
    (mallory.family("gpu") / "node1-000001.parquet").symlink_to(segment)
    (mallory.family("gpu") / "node1-000002.parquet").hardlink_to(segment)
    mallory.telemetry.joinpath("host").rmdir() if mallory.family("host").exists() else None
    mallory.family("host").symlink_to(victim.family("gpu"))
    mallory.report.symlink_to(victim.job)
    mallory.findings.symlink_to(victim.job)
    with Archive(root).seen_by(OPERATOR).open("lab", "66") as book:
        assert not book.table("gpu").relation.fetchall()
        assert not book.table("host").relation.fetchall()
        assert len(book.quality().torn) == 3
        assert book.findings() is None
        with pytest.raises(UsageError, match=r"no report\.html"):
            book.document("report.html")


@pytest.mark.parametrize("name", ["../2/job.json", "vet", "telemetry", "/etc/passwd"])
def test_only_the_listed_documents_are_given_away(root: Path, name: str) -> None:
    with open_logbook(Logbook(root / "lab" / "1")) as book, pytest.raises(UsageError):
        book.document(name)


def test_the_list_is_filtered_and_paged(root: Path) -> None:
    make(root, "10", "ada", name="resnet", started_ns=made_logbooks.START_NS + 1)
    jobs = Archive(root).seen_by(OPERATOR)
    assert [job.job_id for job in jobs.find(most=1).jobs] == ["10"]
    assert jobs.find(first=1).total == 4
    assert [job.job_id for job in jobs.find(JobFilter(text="RESNET")).jobs] == ["10"]
    assert not jobs.find(JobFilter(state="COMPLETED")).jobs
    assert jobs.find(JobFilter(state="ENDED", user="carl")).total == 1
    assert not jobs.find(JobFilter(until_ns=made_logbooks.START_NS)).jobs
    assert not jobs.find(JobFilter(with_findings=True)).jobs


def test_without_an_outcome_a_job_has_ended_where_a_recorder_saw_it_and_runs_elsewhere(root: Path) -> None:
    (ended,) = Archive(root).seen_by(ADA).find(JobFilter(state="ENDED")).jobs
    path = root / "lab" / ended.job_id / "job.json"
    record = json.loads(path.read_text())
    assert ended.ended_ns == record["program_ended_ns"]
    path.write_text(json.dumps(record | {"program_ended_ns": None}))
    (running,) = Archive(root).seen_by(ADA).find(JobFilter(state="RUNNING")).jobs
    assert (running.job_id, running.ended_ns) == (ended.job_id, None)


def test_a_summary_is_read_again_when_a_record_changed(root: Path) -> None:
    archive = Archive(root)
    before = archive.seen_by(ADA).find().jobs
    (root / "lab" / "1" / "outcome.json").write_text('{"state": "FAILED", "exit_status": 1}')
    assert before[0].state == "ENDED"
    assert archive.seen_by(ADA).find().jobs[0].state == "FAILED"
    (root / "lab" / "1" / "job.json").write_text("{")
    assert not archive.seen_by(ADA).find().jobs
