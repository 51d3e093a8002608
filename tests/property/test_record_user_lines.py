from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.logbook.schema import EVENTS, USER
from piolet.record.collectors.user import MAX_NAMES, MAX_ROWS_AT_ONCE, Ledger, Report, parse

names = st.from_regex(r"[a-z_][a-z0-9_./-]{0,20}", fullmatch=True).filter(
    lambda name: name not in {"rank", "step", "lost", "phase"}
)
reports = st.builds(
    Report,
    rank=st.one_of(st.none(), st.integers(0, 2**31 - 1)),
    step=st.one_of(st.none(), st.integers(0, 2**63 - 1)),
    lost=st.integers(0, 2**31 - 1),
    phase=st.one_of(st.just(""), names),
    values=st.dictionaries(names, st.floats(allow_nan=False), max_size=8),
)


def _line(report: Report) -> bytes:
    own: dict[str, Any] = {"rank": report.rank, "step": report.step, "lost": report.lost, "phase": report.phase}
    words = {name: value for name, value in own.items() if value not in {None, ""}} | dict(report.values)
    return " ".join(f"{name}={value}" for name, value in words.items()).encode()


@given(reports)
def test_a_report_survives_its_line(report: Report) -> None:
    assert parse(_line(report)) == report


@given(st.binary(max_size=3000))
def test_no_datagram_is_an_error(datagram: bytes) -> None:
    parsed = parse(datagram)
    assert parsed is None or len(parsed.values) <= len(datagram) // 3


@pytest.mark.parametrize("separator", [b" ", b"  ", b"\n"])
@given(datagrams=st.lists(st.binary(max_size=40), max_size=4))
def test_words_of_any_bytes_are_refused_or_taken_as_a_whole(separator: bytes, datagrams: list[bytes]) -> None:
    parsed = parse(separator.join([b"loss=1", *datagrams]))
    assert parsed is None or "loss" in parsed.values


@given(st.lists(st.one_of(st.none(), reports), max_size=40))
def test_rows_fit_the_schema_and_the_bounds(told: list[Report | None]) -> None:
    ledger = Ledger()
    found = [entry for report in told for entry in ledger.rows(7, report)]
    assert len(found) <= MAX_ROWS_AT_ONCE
    columns = {"user": set(USER.names), "events": set(EVENTS.names)}
    assert all(set(row) <= columns[family] for family, row in found)
    assert len({row["name"] for family, row in found if family == "user"}) <= MAX_NAMES
    assert ledger.refused >= told.count(None)
