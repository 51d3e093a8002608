from __future__ import annotations

import re
from pathlib import Path

import pytest

from piolet.logbook.layout import Logbook
from piolet.logbook.reader import read
from piolet.logbook.schema import FAMILIES, Column, Family
from piolet.logbook.writer import SegmentWriter

PAGE = Path(__file__).parents[3] / "docs/reference/logbook.md"
UNITS = ("_ratio", "_bytes", "_per_s", "_w", "_j", "_hz", "_c", "_s", "_ns", "_cores")


def _row(column: Column) -> str:
    step = f"{column.resolution:g} " if column.resolution else ""
    return f"| `{column.name}` | {column.kind} | {step}| {column.meaning} |"


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_the_reference_page_lists_every_column(family: Family) -> None:
    section = PAGE.read_text().split(f"### `{family.name}`")[1].partition("\n### ")[0]
    assert [line for line in section.splitlines() if line.startswith("| `")] == [_row(each) for each in family.columns]


def test_a_column_that_is_rounded_has_its_unit_in_its_name() -> None:
    rounded = [column.name for family in FAMILIES.values() for column in family.columns if column.resolution]
    assert [name for name in rounded if not name.endswith(UNITS)] == []
    assert all(re.fullmatch("[a-z][a-z0-9_]*", name) for family in FAMILIES.values() for name in family.names)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_every_family_can_be_written_and_read(logbook: Logbook, family: Family) -> None:
    values = {"BIGINT": 3 << 30, "INTEGER": 7, "VARCHAR": "word", "BOOLEAN": True, "FLOAT": 0.5, "DOUBLE": 0.25}
    row = {column.name: values[column.kind] for column in family.columns} | {"node": "n1"}
    writer = SegmentWriter(logbook, "n1")
    writer.append(family.name, row)
    writer.append(family.name, {"time_ns": 1, "node": "n1"})
    writer.close()
    with read(logbook) as opened:
        found = opened.database.table(family.name).order("time_ns").fetchall()
    assert found[0] == (1, "n1", *[None] * (len(row) - 2))
    expected = [row[column.name] if column.resolution < 1 else pytest.approx(row[column.name], abs=column.resolution)
                for column in family.columns]  # fmt: skip
    assert list(found[1]) == expected
