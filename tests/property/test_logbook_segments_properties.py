from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import Any

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from piolet.core.nouns import Interval
from piolet.logbook import quality, segments
from piolet.logbook.layout import Logbook, create
from piolet.logbook.merging import connect, merge
from piolet.logbook.reader import read
from piolet.logbook.schema import FAMILIES, Column
from piolet.logbook.writer import SegmentWriter, rounded

HOST = FAMILIES["host"]
DATABASE = duckdb.connect(":memory:")

node_names = st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True)


@given(node_names, st.integers(1, 10**7), st.integers(0, 10**7))
def test_the_name_of_a_segment_tells_what_it_holds(node: str, first: int, more: int) -> None:
    parsed = segments.parse(Path(segments.name(node, first, first + more)))
    assert parsed is not None
    assert (parsed.node, parsed.first, parsed.last) == (node, first, first + more)


@given(st.text(max_size=40).filter(lambda text: "/" not in text and "\0" not in text))
def test_any_other_name_is_refused_or_round_trips(text: str) -> None:
    parsed = segments.parse(Path("d") / f"{text}.parquet")
    assert parsed is None or (parsed.node and parsed.first >= 0)


@given(st.floats(), st.sampled_from([0.0, 0.001, 1.0, 1024.0]))
def test_rounding_moves_a_value_by_half_a_step_at_most(value: float, resolution: float) -> None:
    result = rounded(Column("x", "DOUBLE", resolution), value)
    if not abs(value) <= 1e300:  # NaN, infinities, and what overflows when divided by a resolution
        assert result is None
    else:
        assert abs(result - value) <= resolution / 2 + abs(value) * 1e-12


@given(st.floats(-3e38, 3e38), st.sampled_from([0.0, 2**-10, 1.0, 1024.0]))
def test_a_float_keeps_eight_bits_and_then_stays_as_it_is(value: float, resolution: float) -> None:
    column = Column("x", "FLOAT", resolution)
    result = rounded(column, value)
    assert abs(result - value) <= max(resolution / 2, abs(value) / 256) * (1 + 1e-12)
    assert rounded(column, result) == result
    if result == 0 or abs(result) > 2**-118:  # below are the subnormal ones
        assert struct.pack("<f", result)[:2] == b"\0\0", "bfloat16"


def _rows(logbook: Logbook) -> list[tuple[Any, ...]]:
    with read(logbook) as opened:
        assert opened.torn == ()
        return sorted(opened.database.execute("SELECT * FROM host").fetchall())


def _merge_first(logbook: Logbook, count: int) -> None:
    """Merge the first `count` segments only, as a merge would that ran when no others were there."""
    directory = logbook.family("host")
    later = [each.path for each in segments.list_segments(directory)[count:]]
    aside = [path.rename(path.with_suffix(".aside")) for path in later]
    merge(connect(), directory, HOST, "n1")
    for path in aside:
        path.rename(path.with_suffix(".parquet"))


@settings(max_examples=8, deadline=None)
@given(
    flushes=st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=3), min_size=1, max_size=5),
    cuts=st.lists(st.integers(1, 5), max_size=3),
)
def test_merging_in_any_groups_gives_the_same_rows(flushes: list[list[float]], cuts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        logbook = create(Path(directory), "alps", "42")
        recorder = SegmentWriter(logbook, "n1")
        time_ns = 0
        for values in flushes:
            for value in values:
                time_ns += 1
                recorder.append("host", {"time_ns": time_ns, "node": "n1", "cpu_busy_ratio": value})
            recorder.flush()
        expected = _rows(logbook)
        for count in cuts:
            _merge_first(logbook, count)
            assert _rows(logbook) == expected
        recorder.close()
        assert _rows(logbook) == expected
        assert len(list(logbook.family("host").iterdir())) == 1
        assert len(expected) == sum(map(len, flushes))


@given(st.sets(st.integers(0, 60)), st.integers(1, 60))
def test_missing_time_and_present_samples_account_for_the_interval(seconds: set[int], end: int) -> None:
    times = sorted(second * 10**9 for second in seconds)
    expected = Interval(0, end * 10**9)
    DATABASE.execute("CREATE OR REPLACE TABLE host AS SELECT 'n1' AS node, unnest(?::BIGINT[]) AS time_ns", [times])
    count, found = quality.samples(DATABASE, "host", expected, 1.0).get("n1", (0, ()))
    assert count == len([second for second in seconds if second < end])
    missing_s = sum(gap.duration_s for gap in found)
    inside = [second for second in seconds if second < end]
    assert 0 <= missing_s <= end - len(inside)
    assert all(gap.duration_s >= quality.GAP_PERIODS for gap in found if gap.start_ns > 0)
    assert not any(gap.start_ns <= time < gap.end_ns for gap in found for time in times)
