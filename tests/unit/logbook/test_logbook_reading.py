from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from pathlib import Path

import duckdb
import pytest

from piolet.core.errors import ParseError, Refused, StorageError, UsageError
from piolet.core.nouns import CheckResult, Gpu, Interval, Status
from piolet.core.settings import Settings
from piolet.logbook import layout, quality, records, segments
from piolet.logbook.layout import Logbook, create
from piolet.logbook.reader import read, rereading
from piolet.logbook.records import JobRecord, NodeAllocation, Outcome
from piolet.logbook.writer import SegmentWriter

SECOND = 10**9


def _job(**values: object) -> JobRecord:
    fields = {"job_id": "42", "cluster": "alps", "user": "ana", "command": ("python", "train.py")} | values
    return JobRecord(**fields)  # type: ignore[arg-type]


def test_the_root_is_the_setting_then_scratch_then_the_users_data(tmp_path: Path) -> None:
    assert layout.root(Settings(root=tmp_path), {"SCRATCH": "/scratch/ana"}) == tmp_path
    assert layout.root(Settings(), {"SCRATCH": "/scratch/ana"}) == Path("/scratch/ana/piolet")
    assert layout.root(Settings(), {}).name == "piolet"


def test_a_job_has_one_logbook(logbook: Logbook, tmp_path: Path) -> None:
    assert {path.name for path in logbook.path.iterdir()} == {"vet", "telemetry", "events"}
    create(tmp_path / "root", "alps", "42")
    records.write_job(logbook.job, _job())
    with pytest.raises(Refused, match="has a logbook already"):
        create(tmp_path / "root", "alps", "42")


def test_a_read_only_root_is_a_storage_error_that_names_it(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True, timeout=10)
    with pytest.raises(StorageError, match="Read-only file system") as caught:
        create(small_disk, "alps", "42")
    assert str(small_disk) in str(caught.value)


def test_a_logbook_is_found_by_job_id_or_directory(
    logbook: Logbook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    with pytest.raises(UsageError, match="no logbook of a job 42"):
        layout.find("42", root)
    records.write_job(logbook.job, _job())
    assert layout.find("42", root) == layout.find(str(logbook.path), root) == logbook
    monkeypatch.chdir(logbook.path)
    assert layout.find(".", root) == logbook
    with pytest.raises(UsageError, match="not a logbook"):
        layout.find(str(tmp_path), root)


def test_last_is_the_newest_logbook_of_ones_own(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with pytest.raises(UsageError, match="no logbook of yours"):
        layout.find("last", root)
    older, newer, foreign = (create(root, cluster, job) for cluster, job in (("b", "9"), ("a", "7"), ("a", "8")))
    for at_s, book in enumerate((older, newer, foreign), start=1_700_000_000):
        records.write_job(book.job, _job())
        os.utime(book.job, (at_s, at_s))
    os.chown(foreign.job, 4711, 4711)
    assert layout.find("last", root) == newer
    assert layout.find("last", root, "b") == older


def test_a_job_id_on_two_clusters_is_ambiguous(logbook: Logbook, tmp_path: Path) -> None:
    for book in (logbook, create(tmp_path / "root", "daint", "42")):
        records.write_job(book.job, _job())
    with pytest.raises(UsageError, match="several clusters: alps, daint"):
        layout.find("42", tmp_path / "root")
    assert layout.find("42", tmp_path / "root", "daint").path.parent.name == "daint"


def test_records_come_back_as_they_were_written(logbook: Logbook) -> None:
    gpu = Gpu(0, "GPU-1", "H100", 80 << 30, simulated=True)
    job = _job(allocation=(NodeAllocation("n1", (gpu,), 1, 2),), versions={"piolet": "0.1"}, simulated=("gpu",))
    records.write_job(logbook.job, job)
    assert records.read_job(logbook.job) == job
    assert job.gpus == (("n1", gpu),)
    assert records.read_outcome(logbook.outcome) is None
    records.write_outcome(logbook.outcome, Outcome("FAILED", 9, domain=records.Domain.WORKLOAD))
    assert records.read_outcome(logbook.outcome) == Outcome("FAILED", 9, domain=records.Domain.WORKLOAD)


def test_a_torn_or_wrong_record_names_the_file_and_the_field(logbook: Logbook) -> None:
    logbook.job.write_text('{"job_id": "42"')
    with pytest.raises(ParseError, match="not valid JSON"):
        records.read_job(logbook.job)
    logbook.job.write_text('{"job_id": "42", "cluster": "a", "user": "u", "command": 3}')
    with pytest.raises(ParseError, match=r"JobRecord\.command"):
        records.read_job(logbook.job)


def test_checks_come_back_in_the_order_of_stages(logbook: Logbook) -> None:
    first, second = (CheckResult(name, "n1", Status.PASS, "fine") for name in ("gpu_count", "mounts"))
    records.write_checks(logbook.vet, "2-mounts", [second])
    records.write_checks(logbook.vet, "1-gpu", [first])
    assert records.read_checks(logbook.vet) == (first, second)
    (logbook.vet / "1-gpu.jsonl").write_text('{"check": 1\n')
    with pytest.raises(ParseError, match="not a JSON line"):
        records.read_checks(logbook.vet)


def test_what_nobody_recorded_is_an_empty_view(logbook: Logbook) -> None:
    with read(logbook) as opened:
        assert opened.database.execute("SELECT power_w FROM gpu").fetchall() == []
        assert opened.torn == ()


def test_torn_segments_are_left_out_and_named(logbook: Logbook) -> None:
    recorder = SegmentWriter(logbook, "n1")
    for second in range(3):
        recorder.append("host", {"time_ns": second, "node": "n1"})
        recorder.flush()
    whole, cut, garbled = sorted(logbook.family("host").iterdir())
    os.truncate(cut, 40)
    garbled.write_bytes(b"PAR1" + bytes(range(200)) + b"PAR1")
    with read(logbook) as opened:
        assert set(opened.torn) == {cut, garbled}
        assert opened.database.execute("SELECT time_ns FROM host").fetchall() == [(0,)]
    assert whole.exists()


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], []),
        ([], [(0, 10)]),
        ([0, 1, 2, 8, 9], [(3, 8)]),
        ([6, 7, 8, 9], [(0, 6)]),
        ([0, 1, 2, 3], [(4, 10)]),
        ([0, 1, 4, 5, 6, 9], []),
        ([-50, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 50], []),
    ],
)
def test_gaps_are_holes_of_more_than_three_periods(times: list[int], expected: list[tuple[int, int]]) -> None:
    with duckdb.connect() as database:
        twice = [time * SECOND for time in times] * 2
        database.execute("CREATE TABLE gpu AS SELECT 'n1' AS node, unnest(?::BIGINT[]) AS time_ns", [twice])
        found = quality.samples(database, "gpu", Interval(0, 10 * SECOND), 1.0)
    count, gaps = found.get("n1", (0, (Interval(0, 10 * SECOND),)))
    assert count == len([time for time in times if 0 <= time < 10])
    assert [(gap.start_ns // SECOND, gap.end_ns // SECOND) for gap in gaps] == expected


def test_quality_tells_what_is_missing_on_which_node(logbook: Logbook) -> None:
    gpu = Gpu(0, "GPU-1")
    job = _job(
        allocation=(NodeAllocation("n1", (gpu,)), NodeAllocation("n2"), NodeAllocation("n3", used=False)),
        program_started_ns=0,
        program_ended_ns=20 * SECOND,
        sample_interval_s=1.0,
    )
    recorder = SegmentWriter(logbook, "n1")
    for second in (*range(8), *range(14, 20)):
        recorder.append("host", {"time_ns": second * SECOND, "node": "n1"})
        recorder.append("gpu", {"time_ns": second * SECOND, "node": "n1", "gpu": 0})
    recorder.append("events", {"time_ns": 14 * SECOND, "node": "n1", "kind": "agent", "code": "restart"})
    for code, message in (("unavailable", "nvml: no: why"), ("not-applicable", "fs: none"), ("recovered", "nvml: yes")):
        recorder.append("events", {"time_ns": 1, "node": "n1", "kind": "collector", "code": code, "message": message})
    recorder.close()
    with read(logbook) as opened:
        found = quality.assess(opened, job)
    assert [(each.node, each.family, each.missing_s) for each in found.coverage] == [
        ("n1", "gpu", 6.0),
        ("n1", "host", 6.0),
        ("n2", "host", 20.0),
    ]
    assert [each.coverage_ratio for each in found.coverage] == [0.7, 0.7, 0.0]
    assert found.agent_restarts == (("n1", 1),)
    assert found.unavailable == (("n1", "nvml", "no: why"),)
    assert found.not_applicable == ("fs (1 node)",)


def test_a_job_that_never_ran_has_no_expectations(logbook: Logbook) -> None:
    with read(logbook) as opened:
        assert quality.assess(opened, _job(allocation=(NodeAllocation("n1"),))).coverage == ()


def test_a_segment_merged_between_listing_and_reading_is_read_in_its_other_place(
    logbook: Logbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = _flushed(logbook, 2)
    listed = segments.list_segments

    def then_merge(directory: Path, nodes: Collection[str]) -> list[segments.Segment]:
        found = listed(directory, nodes)
        monkeypatch.setattr(segments, "list_segments", listed)
        writer.close()
        return found

    monkeypatch.setattr(segments, "list_segments", then_merge)
    with read(logbook) as reader:
        assert (reader.torn, len(reader.paths)) == ((), 1)
        assert reader.database.execute("SELECT count(*) FROM gpu").fetchall() == [(2,)]


def test_a_reading_begins_anew_when_a_segment_went_away(logbook: Logbook) -> None:
    writer = _flushed(logbook, 2)
    opened = []

    @rereading
    def count() -> int:
        with read(logbook) as reader:
            opened.append(reader.paths)
            writer.close()
            return len(reader.database.execute("SELECT * FROM gpu").fetchall())

    assert count() == 2
    assert [len(paths) for paths in opened] == [2, 1]


def _flushed(logbook: Logbook, count: int) -> SegmentWriter:
    writer = SegmentWriter(logbook, "n1")
    for second in range(count):
        writer.append("gpu", {"time_ns": second * SECOND, "node": "n1", "gpu": 0})
        writer.flush()
    return writer
