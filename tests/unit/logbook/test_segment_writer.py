from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from piolet.core.errors import StorageError
from piolet.logbook import merging, segments, writer
from piolet.logbook.layout import Logbook, create
from piolet.logbook.merging import connect, merge
from piolet.logbook.reader import read
from piolet.logbook.schema import FAMILIES
from piolet.logbook.writer import SegmentWriter


def _row(second: int, node: str = "n1", **values: object) -> dict[str, object]:
    return {"time_ns": second * 10**9, "node": node, **values}


def _seconds(logbook: Logbook, node: str = "n1") -> list[int]:
    with read(logbook) as opened:
        found = opened.database.execute("SELECT time_ns FROM host WHERE node = ? ORDER BY 1", [node]).fetchall()
    return [time // 10**9 for (time,) in found]


def _names(logbook: Logbook, family: str = "host") -> list[str]:
    return sorted(path.name for path in logbook.family(family).iterdir())


def _recorded(logbook: Logbook, flushes: int, node: str = "n1") -> SegmentWriter:
    recorder = SegmentWriter(logbook, node)
    for second in range(flushes):
        recorder.append("host", _row(second, node))
        recorder.flush()
    return recorder


def test_each_flush_is_a_segment_and_closing_merges_them(logbook: Logbook) -> None:
    recorder = _recorded(logbook, 3)
    assert _names(logbook) == [f"n1-{number:06d}.parquet" for number in (1, 2, 3)]
    recorder.close()
    assert _names(logbook) == ["n1-000001+000003.parquet"]
    assert _seconds(logbook) == [0, 1, 2]


def test_nothing_pending_writes_nothing(logbook: Logbook) -> None:
    recorder = SegmentWriter(logbook, "n1")
    assert recorder.flush() == []
    recorder.close()
    assert not (logbook.telemetry / "host").exists()


def test_a_second_writer_of_the_node_goes_on_where_the_first_stopped(logbook: Logbook) -> None:
    _recorded(logbook, 2)
    later = SegmentWriter(logbook, "n1")
    later.append("host", _row(9))
    assert [path.name for path in later.flush()] == ["n1-000003.parquet"]
    later.close()
    assert _seconds(logbook) == [0, 1, 9]


def test_values_are_rounded_to_the_resolution_and_missing_stays_null(logbook: Logbook) -> None:
    recorder = SegmentWriter(logbook, "n1")
    recorder.append(
        "host", _row(1, cpu_busy_ratio=0.12345, cpu_iowait_ratio=float("nan"), memory_used_bytes=(5 << 20) + 9)
    )
    recorder.close()
    with read(logbook) as opened:
        row = opened.database.execute(
            "SELECT cpu_busy_ratio, cpu_iowait_ratio, memory_used_bytes, net_rx_bytes_per_s FROM host"
        ).fetchone()
    assert row is not None
    assert row[0] == 126 / 1024
    assert row[1:] == (None, 5 << 20, None)


def test_merging_leaves_out_what_nobody_told_and_keeps_what_it_does_not_know(logbook: Logbook) -> None:
    _recorded(logbook, 2)
    later = logbook.family("host") / "n1-000003.parquet"
    duckdb.sql("SELECT 5::BIGINT AS time_ns, 'n1' AS node, 0.5::FLOAT AS cpu_busy_ratio, 7 AS of_later").write_parquet(
        str(later)
    )
    (merged,) = merge(connect(), logbook.family("host"), FAMILIES["host"], "n1")
    told = duckdb.read_parquet(str(merged))
    assert told.columns == ["time_ns", "node", "cpu_busy_ratio", "of_later"]
    with read(logbook) as opened:
        found = opened.database.execute("SELECT cpu_busy_ratio, disk_read_bytes_per_s FROM host ORDER BY time_ns")
        assert found.fetchall() == [(None, None), (0.5, None), (None, None)]


def test_an_unknown_column_is_refused(logbook: Logbook) -> None:
    with pytest.raises(KeyError, match="host has no column cpu"):
        SegmentWriter(logbook, "n1").append("host", _row(1, cpu=1))


def test_a_kill_between_merging_and_removing_loses_and_doubles_nothing(logbook: Logbook) -> None:
    _recorded(logbook, 3)
    kept = {path.name: path.read_bytes() for path in logbook.family("host").iterdir()}
    merge(connect(), logbook.family("host"), FAMILIES["host"], "n1")
    for name, content in kept.items():
        (logbook.family("host") / name).write_bytes(content)
    assert _seconds(logbook) == [0, 1, 2]
    SegmentWriter(logbook, "n1").close()
    assert _names(logbook) == ["n1-000001+000003.parquet"]
    assert _seconds(logbook) == [0, 1, 2]


def test_merging_leaves_a_torn_segment_visible(logbook: Logbook) -> None:
    recorder = _recorded(logbook, 5)
    torn = logbook.family("host") / "n1-000003.parquet"
    torn.write_bytes(torn.read_bytes()[:-7])
    recorder.close()
    assert _names(logbook) == ["n1-000001+000002.parquet", "n1-000003.parquet", "n1-000004+000005.parquet"]
    assert _seconds(logbook) == [0, 1, 3, 4]
    with read(logbook) as opened:
        assert opened.torn == (torn,)


def test_merging_leaves_other_nodes_alone(logbook: Logbook) -> None:
    _recorded(logbook, 2, "n10")
    _recorded(logbook, 2, "n1").close()
    assert _names(logbook) == ["n1-000001+000002.parquet", "n10-000001.parquet", "n10-000002.parquet"]


def test_a_full_disk_keeps_the_rows_for_the_next_flush(small_disk: Path) -> None:
    logbook = create(small_disk, "alps", "42")
    filler = small_disk / "filler"
    recorder = SegmentWriter(logbook, "n1")
    recorder.append("host", _row(1))
    filler.write_bytes(_all_that_is_free(small_disk))
    with pytest.raises(StorageError, match="No space left"):
        recorder.flush()
    assert not list(logbook.family("host").glob("*.parquet"))
    filler.unlink()
    recorder.append("host", _row(2))
    recorder.close()
    assert _seconds(logbook) == [1, 2]
    assert recorder.dropped_rows == 0


def _all_that_is_free(directory: Path) -> bytes:
    space = os.statvfs(directory)
    return b"\0" * (space.f_bavail * space.f_frsize)


def test_a_read_only_file_system_keeps_the_rows(small_disk: Path) -> None:
    logbook = create(small_disk, "alps", "42")
    recorder = SegmentWriter(logbook, "n1")
    recorder.append("host", _row(1))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True, timeout=10)
    with pytest.raises(StorageError, match="Read-only file system"):
        recorder.flush()
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True, timeout=10)
    recorder.close()
    assert _seconds(logbook) == [1]


def test_a_vanished_logbook_is_not_made_again_elsewhere(logbook: Logbook) -> None:
    recorder = _recorded(logbook, 1)
    hidden = logbook.path.rename(logbook.path.with_name("unmounted"))
    recorder.append("host", _row(1))
    with pytest.raises(StorageError, match="the logbook is gone"):
        recorder.flush()
    assert not logbook.path.exists()
    hidden.rename(logbook.path)
    recorder.close()
    assert _seconds(logbook) == [0, 1]


def test_what_waits_is_bounded_and_what_is_dropped_is_counted(
    logbook: Logbook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_PENDING_ROWS", 600)
    recorder = SegmentWriter(logbook, "n1")
    for second in range(700):
        recorder.append("host", _row(second))
    recorder.close()
    assert recorder.dropped_rows == 100
    assert _seconds(logbook) == list(range(100, 700))


def test_many_writers_share_a_logbook_without_a_lock(logbook: Logbook) -> None:
    script = (
        "import sys, pathlib; from piolet.logbook.layout import Logbook; from piolet.logbook.writer import *\n"
        "path, node = sys.argv[1:]\n"
        "w = SegmentWriter(Logbook(pathlib.Path(path)), node)\n"
        "for i in range(4):\n w.append('host', {'time_ns': i * 10**9, 'node': node}); w.flush()\n"
        "w.close()"
    )
    nodes = [f"node{number}" for number in range(1, 5)]
    writers = [subprocess.Popen([sys.executable, "-c", script, logbook.path, node]) for node in nodes]
    assert [process.wait(timeout=20) for process in writers] == [0, 0, 0, 0]
    assert _names(logbook) == [f"{node}-000001+000004.parquet" for node in nodes]
    assert all(_seconds(logbook, node) == [0, 1, 2, 3] for node in nodes)


def test_kill_9_while_writing_leaves_only_whole_segments(logbook: Logbook) -> None:
    script = (
        "import sys, pathlib; from piolet.logbook.layout import Logbook; from piolet.logbook.writer import *\n"
        "w = SegmentWriter(Logbook(pathlib.Path(sys.argv[1])), 'n1')\n"
        "for i in range(10**6):\n w.append('host', {'time_ns': i * 10**9, 'node': 'n1'}); w.flush()\n"
        " print(i, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", script, logbook.path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(12)]
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=5)
        seen += [int(line) for line in process.stdout]
    with read(logbook) as opened:
        assert opened.torn == ()
    assert set(seen) <= set(_seconds(logbook)) <= set(range(len(seen) + 1))


def test_segments_carry_the_version_of_the_schema(logbook: Logbook) -> None:
    recorder = _recorded(logbook, 1)
    recorder.close()
    path = segments.list_segments(logbook.family("host"))[0].path
    rows = duckdb.connect().execute("SELECT key, value FROM parquet_kv_metadata(?)", [str(path)]).fetchall()
    assert (b"piolet_schema", b"1") in rows


def test_merging_only_what_is_new_leaves_merged_segments_alone(logbook: Logbook) -> None:
    _recorded(logbook, 3)
    directory = logbook.family("host")
    merge(connect(), directory, FAMILIES["host"], "n1", new=True)
    later = SegmentWriter(logbook, "n1")
    for second in (7, 8):
        later.append("host", _row(second))
        later.flush()
    merge(connect(), directory, FAMILIES["host"], "n1", new=True)
    merged = ["n1-000001+000003.parquet", "n1-000004+000005.parquet"]
    read_meanwhile = ["n1-000004.parquet", "n1-000005.parquet"]
    assert sorted(path.name for path in directory.iterdir()) == sorted([*merged, *read_meanwhile])
    assert _seconds(logbook) == [0, 1, 2, 7, 8]
    merge(connect(), directory, FAMILIES["host"], "n1", new=True)
    assert sorted(path.name for path in directory.iterdir()) == merged


def test_a_merged_segment_stays_small(logbook: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    _recorded(logbook, 4)
    size = sum(path.stat().st_size for path in logbook.family("host").iterdir())
    monkeypatch.setattr(merging, "MOST_BYTES", size * 3 // 4)
    merge(connect(), logbook.family("host"), FAMILIES["host"], "n1")
    assert _names(logbook) == ["n1-000001+000003.parquet", "n1-000004.parquet"]
    assert _seconds(logbook) == [0, 1, 2, 3]


def test_a_value_of_the_wrong_type_is_missing_and_hurts_no_other(logbook: Logbook) -> None:
    recorder = SegmentWriter(logbook, "n1")
    recorder.append("host", _row(1, memory_used_bytes="many", cpu_busy_ratio=0.5))
    recorder.close()
    with read(logbook) as opened:
        assert opened.database.execute("SELECT memory_used_bytes, cpu_busy_ratio FROM host").fetchall() == [(None, 0.5)]
