from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from piolet.logbook.parquet import encode
from piolet.logbook.schema import Column, Family

VALUES = {
    "BIGINT": st.integers(-(2**63), 2**63 - 1),
    "INTEGER": st.integers(-(2**31), 2**31 - 1),
    "FLOAT": st.floats(width=32, allow_nan=False),
    "DOUBLE": st.floats(allow_nan=False),
    "BOOLEAN": st.booleans(),
    "VARCHAR": st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=200),
}
KINDS = tuple(VALUES)
EVERY_KIND = Family("every", ("a",), tuple(Column(f"c_{kind.lower()}", kind) for kind in KINDS))
ROWS = st.lists(st.tuples(*(st.none() | VALUES[kind] for kind in KINDS)), min_size=1, max_size=60)


def _read(content: bytes) -> list[tuple[Any, ...]]:
    with tempfile.TemporaryDirectory() as name, duckdb.connect() as database:
        path = Path(name) / "some.parquet"
        path.write_bytes(content)
        return database.execute("SELECT * FROM read_parquet(?)", [str(path)]).fetchall()


@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_any_rows_come_back_as_they_were_written(rows: list[tuple[Any, ...]]) -> None:
    assert _read(encode(EVERY_KIND, rows, {"key": "value"})) == rows


def test_a_lone_surrogate_is_written_as_an_escape() -> None:
    family = Family("one", ("text",), (Column("text", "VARCHAR"),))
    assert _read(encode(family, [("bad \udcff",)], {})) == [("bad \\udcff",)]


def test_a_family_of_many_columns_and_long_values() -> None:
    columns = tuple(Column(f"column_{number}", "BIGINT") for number in range(200))
    rows = [tuple(range(index, index + 200)) for index in range(300)]
    assert _read(encode(Family("wide", ("column_0",), columns), rows, {})) == rows
