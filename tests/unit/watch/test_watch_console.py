from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from piolet.core.errors import UsageError
from piolet.logbook.layout import Logbook
from piolet.watch import Book, console
from piolet.watch.archive import open_logbook
from piolet.watch.console import Limits

PATIENT = Limits(time_s=300)
"""A busy machine takes its time; only the test of the limit has a short one."""


@pytest.fixture(scope="module")
def book(training: Logbook) -> Iterator[Book]:
    with open_logbook(training) as opened:
        yield opened


def test_a_select_is_answered_with_units(book: Book) -> None:
    answer = console.ask(book, "SELECT node, max(power_w) AS power_w FROM gpu GROUP BY node ORDER BY node", PATIENT)
    assert answer.columns == ("node", "power_w")
    assert [node for node, _ in answer.rows] == ["node1", "node3"]
    assert answer.units == {"power_w": "W"}
    assert not answer.truncated


def test_rows_beyond_the_limit_are_told(book: Book) -> None:
    answer = console.ask(book, "FROM gpu", Limits(time_s=PATIENT.time_s, rows=3))
    assert len(answer.rows) == 3
    assert answer.truncated


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "FROM read_csv('/proc/self/environ')",
        "FROM glob('/*')",
        "ATTACH '/tmp/piolet-attack.db'",
        "COPY (SELECT 1) TO '/tmp/piolet-attack'",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW gpu",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "SELECT 1; SELECT 2",
        "SELECT * FROM asked",
        "SELECT * FROM nowhere",
        "not SQL",
        "",
    ],
)
def test_everything_else_is_refused(book: Book, query: str) -> None:
    with pytest.raises(UsageError, match="the query cannot be run"):
        console.ask(book, query, PATIENT)


def test_segments_cannot_be_overwritten(book: Book) -> None:
    segment = book.reader.paths[0]
    before = segment.read_bytes()
    with pytest.raises(UsageError):
        console.ask(book, f"COPY (SELECT 1) TO '{segment}'", PATIENT)
    assert segment.read_bytes() == before


def test_another_jobs_segment_cannot_be_read(book: Book, tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    other.write_bytes(book.reader.paths[0].read_bytes())
    with pytest.raises(UsageError, match="cannot be run"):
        console.ask(book, f"FROM read_parquet('{other}')", PATIENT)


def test_time_is_limited(book: Book) -> None:
    with pytest.raises(UsageError, match=r"longer than 1 s|needed more than"):
        console.ask(book, "SELECT count(*) FROM range(1000000000000) a WHERE hash(a.range) = 1", Limits(time_s=1))


def test_memory_is_limited_where_duckdb_itself_does_not_count(book: Book) -> None:
    with pytest.raises(UsageError):
        console.ask(
            book, "SELECT length(repeat('x', 3000000000))", Limits(time_s=PATIENT.time_s, memory_bytes=256 << 20)
        )
