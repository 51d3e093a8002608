from __future__ import annotations

from pathlib import Path

import pytest

from piolet.logbook import segments
from piolet.logbook.segments import Segment


def _write(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).write_bytes(b"PAR1" + b"\0" * 8 + b"PAR1")


def _found(directory: Path) -> list[str]:
    return [segment.path.name for segment in segments.list_segments(directory)]


def test_segments_are_listed_by_node_and_number(tmp_path: Path) -> None:
    _write(tmp_path, "b-000001.parquet", "a-000002.parquet", "a-000001.parquet")
    assert _found(tmp_path) == ["a-000001.parquet", "a-000002.parquet", "b-000001.parquet"]


@pytest.mark.parametrize(
    "name", [".a-000001.parquet", "a-1.parquet", "a.parquet", "a-000001.parquet.tmp", ".a-000001.parquet.0f.partial"]
)
def test_other_files_are_no_segments(tmp_path: Path, name: str) -> None:
    _write(tmp_path, name)
    assert _found(tmp_path) == []


def test_a_merged_segment_hides_what_it_covers_and_nothing_of_other_nodes(tmp_path: Path) -> None:
    _write(tmp_path, "a-000001.parquet", "a-000002.parquet", "a-000003.parquet", "a-000001+000002.parquet")
    _write(tmp_path, "b-000001.parquet")
    assert _found(tmp_path) == ["a-000001+000002.parquet", "a-000003.parquet", "b-000001.parquet"]


def test_a_torn_merged_segment_hides_nothing(tmp_path: Path) -> None:
    _write(tmp_path, "a-000001.parquet", "a-000002.parquet")
    (tmp_path / "a-000001+000002.parquet").write_bytes(b"PAR1")
    assert _found(tmp_path) == ["a-000001.parquet", "a-000001+000002.parquet", "a-000002.parquet"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1PAR1", b"PAR1" + b"\0" * 20, b"\0" * 20 + b"PAR1"])
def test_a_torn_file_is_not_intact(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a-000001.parquet"
    path.write_bytes(content)
    assert not Segment("a", 1, 1, path).intact()


def test_a_file_that_is_gone_is_not_intact(tmp_path: Path) -> None:
    assert not Segment("a", 1, 1, tmp_path / "gone").intact()


def test_the_next_number_follows_the_last_flush_even_of_merged_ones(tmp_path: Path) -> None:
    _write(tmp_path, "a-000001+000007.parquet", "b-000009.parquet")
    found = segments.all_segments(tmp_path)
    assert segments.next_sequence(found, "a") == 8
    assert segments.next_sequence(found, "c") == 1
