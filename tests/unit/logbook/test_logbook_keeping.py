from __future__ import annotations

import json
from pathlib import Path

import duckdb
import made_logbooks
import pyarrow as pa
import pytest

from piolet.cli.main import run_command
from piolet.core.errors import Refused, StorageError
from piolet.logbook import keeping, merging, upgrading
from piolet.logbook.layout import Logbook
from piolet.logbook.records import Outcome, write_outcome
from piolet.logbook.writer import SegmentWriter


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logbook:
    """An ended job of one node in an own root, with two segments of `gpu`."""
    monkeypatch.setenv("PIOLET_ROOT", str(tmp_path))
    record = made_logbooks.job(seconds=5)
    logbook = made_logbooks.write(tmp_path, record, made_logbooks.constant(record, 5, sm_active=0.5))
    later = SegmentWriter(logbook, "node1")
    later.append("gpu", made_logbooks.row("node1", 0, 5.5, sm_active=0.5))
    later.flush()
    return logbook


def test_ls_lists_every_job_and_says_which_is_torn(book: Logbook, capsys: pytest.CaptureFixture[str]) -> None:
    torn = book.path.with_name("9")
    torn.mkdir()
    (torn / "job.json").write_text("{")
    assert run_command(["logbook", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["job", "4711", "9"]
    assert "job.json is unreadable" in lines[2]
    assert run_command(["logbook", "ls", "--format", "json"]) == 0
    assert [each["segments"] for each in json.loads(capsys.readouterr().out)] == [2, 0]


def test_verify_finds_what_only_reading_shows(book: Logbook, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["logbook", "verify", "4711"]) == 0
    path = max(book.family("gpu").glob("*.parquet"), key=lambda each: each.stat().st_size)
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)
    (book.outcome).write_text('{"state": 7}')
    assert run_command(["logbook", "verify", "4711", "--format", "json"]) == 1
    output = capsys.readouterr().out
    assert {Path(each["path"]).name for each in json.loads(output[output.index("[") :])} == {path.name, "outcome.json"}


def test_compact_merges_an_ended_job_and_leaves_a_running_one(
    book: Logbook, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["logbook", "compact", "4711"]) == 0
    assert [path.name for path in book.family("gpu").iterdir()] == ["node1-000001+000002.parquet"]
    assert run_command(["logbook", "compact", "4711"]) == 0
    assert "there is nothing to merge" in capsys.readouterr().out
    made_logbooks.write(tmp_path, made_logbooks.job(job_id="5", program_ended_ns=None), [])
    for words in (["compact", "5"], ["rm", "4711", "5"], ["rm", "5", "--dry-run"]):
        assert run_command(["logbook", *words]) == 2
        assert "this job has not ended" in capsys.readouterr().err
        assert book.job.exists()


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_export_writes_a_file_a_family_and_replaces_none(
    book: Logbook, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out"
    assert run_command(["logbook", "export", str(book.path), str(target), "--as", form]) == 0
    assert [path.name for path in target.iterdir()] == [f"gpu.{form}"]
    found = duckdb.connect().execute(f"SELECT count(*), avg(sm_active_ratio) FROM '{target}/gpu.{form}'")  # noqa: S608
    assert found.fetchall() == [(6, pytest.approx(0.5))]
    assert run_command(["logbook", "export", str(book.path), str(target), "--as", form]) == 2
    assert "the file is there already" in capsys.readouterr().err


def test_an_exported_arrow_file_holds_every_value(book: Logbook, tmp_path: Path) -> None:
    assert run_command(["logbook", "export", str(book.path), str(tmp_path / "out"), "--as", "arrow"]) == 0
    with pa.OSFile(str(tmp_path / "out/gpu.arrow")) as file:
        table = pa.ipc.open_file(file).read_all()
    assert table.num_rows == 6
    assert table["sm_active_ratio"].to_pylist() == pytest.approx([0.5] * 6)
    assert table.schema.field("time_ns").type == pa.int64()


def test_rm_shows_what_it_would_remove_then_removes_it(book: Logbook, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["logbook", "rm", "4711", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"would remove {book.path}\n"
    assert book.job.exists()
    assert run_command(["logbook", "rm", "4711", "nothing"]) == 2
    assert book.job.exists()
    assert run_command(["logbook", "rm", "4711"]) == 0
    assert not book.path.exists()


@pytest.mark.parametrize("newer", [{"version": 2}, {"colour": "red"}])
def test_a_record_of_a_newer_version_is_left_as_it_is(book: Logbook, newer: dict[str, object]) -> None:
    write_outcome(book.outcome, Outcome("COMPLETED", 0))
    book.outcome.write_text(json.dumps(json.loads(book.outcome.read_text()) | newer))
    with pytest.raises(Refused, match="newer version"):
        upgrading.upgrade(book)


def test_a_logbook_of_a_newer_version_is_left_as_it_is(tmp_path: Path) -> None:
    record = made_logbooks.job()
    logbook = made_logbooks.write(tmp_path, record, made_logbooks.constant(record, 3, power_w=1.0))
    write_outcome(logbook.outcome, Outcome("COMPLETED", 0))
    [segment] = logbook.family("gpu").glob("*.parquet")
    columns = f"SELECT 1 AS colour, * EXCLUDE (source) FROM read_parquet({merging.quoted(segment)})"  # noqa: S608 - quoted
    with merging.connect() as database:
        merging.copy(database, columns, segment)
    content = segment.read_bytes()
    with pytest.raises(Refused, match="newer version"):
        upgrading.upgrade(logbook)
    assert segment.read_bytes() == content


def test_an_upgrade_that_stopped_half_way_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = made_logbooks.job(["node1", "node2"])
    logbook = made_logbooks.write(tmp_path, record, made_logbooks.constant(record, 3, power_w=1.0))
    write_outcome(logbook.outcome, Outcome("COMPLETED", 0))
    paths = sorted(logbook.family("gpu").glob("*.parquet"))
    with merging.connect() as database:
        for path in paths:
            merging.copy(database, f"SELECT * EXCLUDE (source) FROM read_parquet({merging.quoted(path)})", path)  # noqa: S608 - same
    real, allowed = merging.copy, iter([True])

    def once(database: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
        if not next(allowed, False):
            raise StorageError("no space left", where=str(path), remedy="free some")
        real(database, query, path)

    monkeypatch.setattr(merging, "copy", once)
    with pytest.raises(StorageError):
        upgrading.upgrade(logbook)
    monkeypatch.undo()
    assert keeping.verify(logbook) == []
    assert upgrading.upgrade(logbook) == paths[1:]
    assert upgrading.upgrade(logbook) == []
