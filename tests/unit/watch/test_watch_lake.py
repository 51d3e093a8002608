"""All jobs at once: roll-ups, and every question on DuckDB and on ClickHouse (chDB) over the same files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import clickhouse
import made_logbooks
import pytest
from made_logbooks import SECOND_NS, START_NS

from piolet.cli.main import run_command
from piolet.core.errors import UsageError
from piolet.logbook import merging
from piolet.logbook.records import Outcome, write_outcome
from piolet.logbook.writer import SegmentWriter
from piolet.watch import Archive, Metric, Split, Viewer, lake, rollups, series

DAY = datetime.fromtimestamp(START_NS / SECOND_NS, UTC).date()
LENGTH_S = 200
OPERATOR = Viewer("root", operator=True)


def rows(nodes: list[str], level: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """Two GPUs a node: the last one of the job slow and hot; for a minute all nodes wait for I/O."""
    for second in range(LENGTH_S):
        for node in nodes:
            for gpu in range(2):
                last = (node, gpu) == (nodes[-1], 1)
                values = {"sm_active": level, "gr_engine_active": 0.9, "power_w": 300 + 10 * gpu + second % 7}
                hot = {"sm_clock_hz": 1.2e9 if last else 1.9e9, "throttle_reasons": 64 if last else 0}
                heat = {"temperature_c": 88 if last else None if second % 9 == 0 else 60}
                yield "gpu", made_logbooks.row(node, gpu, second + 0.25, **values, **hot, **heat)
            waits = 0.5 if 60 <= second < 120 else 0.0
            host = {"node": node, "io_pressure_ratio": waits + 0.001 * (second % 5), "cpu_busy_ratio": 0.3}
            yield "host", {"time_ns": START_NS + second * SECOND_NS, **host}
    for code in ("79", "45"):
        yield "events", {"time_ns": START_NS, "node": nodes[0], "gpu": 0, "kind": "xid", "code": code, "message": ""}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three jobs of a day, one of them idle, and one that still runs; rolled up."""
    root = tmp_path_factory.mktemp("lake's")
    for number, level in enumerate((0.8, 0.6, 0.05, 0.7), start=1):
        nodes = [f"n{2 * number}", f"n{2 * number + 1}"]
        record = made_logbooks.job(nodes, 2, LENGTH_S, job_id=str(number), account=f"a{number % 2}")
        if number == 4:
            record = replace(record, program_ended_ns=None)
        logbook = made_logbooks.write(root, record, rows(nodes, level))
        if number < 4:
            write_outcome(logbook.outcome, Outcome("COMPLETED", 0, ended_ns=record.program_ended_ns))
    assert rollups.write(root, "lab", DAY, Archive(root).seen_by(OPERATOR)) == 3
    return root


def on_clickhouse(query: str) -> list[list[Any]]:
    answer = json.loads(clickhouse.query(query))
    whole = [column["type"] for column in answer["meta"]]
    return [
        [int(cell) if "Int64" in kind and cell is not None else cell for kind, cell in zip(whole, row, strict=True)]
        for row in answer["data"]
    ]


def same(first: Any, second: Any) -> bool:
    if isinstance(first, float) and isinstance(second, float | int):
        return math.isclose(first, second, rel_tol=1e-6)
    return bool(first == second)


def assert_equal(root: Path, query: str) -> int:
    """Both engines give the same rows, of which there are some; returns how many."""
    here = lake.ask(root, "lab", query).rows
    there = on_clickhouse(lake.clickhouse(str(root), "lab", query))
    assert here
    assert len(here) == len(there)
    assert all(same(*cells) for pair in zip(here, there, strict=True) for cells in zip(*pair, strict=True)), (
        here,
        there,
    )
    return len(here)


@pytest.mark.parametrize("name", lake.CATALOGUE)
def test_every_question_has_one_answer(root: Path, name: str) -> None:
    assert_equal(root, lake.query_of(name))


METRICS = (Metric("gpu", "power_w"), Metric("gpu", "temperature_c"), Metric("host", "io_pressure_ratio"))


@pytest.mark.parametrize("split", Split)
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.column)
def test_the_series_of_plots_are_the_same_too(root: Path, metric: Metric, split: Split) -> None:
    values = {"start": START_NS, "end": START_NS + LENGTH_S * SECOND_NS, "width": 10 * SECOND_NS}
    query = series.statement(metric, split)
    for name, number in values.items():
        query = query.replace(f"${name}", str(number))
    assert assert_equal(root, query) >= LENGTH_S // 10


def test_a_roll_up_has_what_the_samples_say(root: Path) -> None:
    query = """SELECT sum(samples), max(power_w_high), min(power_w_low), sum(power_w * samples) / sum(samples)
        FROM {} WHERE job = '1'"""
    exact = """SELECT count(*), max(power_w), min(power_w), avg(power_w) FROM gpu WHERE job = '1'"""
    (expected,) = lake.ask(root, "lab", exact).rows
    assert {path.stat().st_mode & 0o777 for path in root.glob("lab/rollup/*/*.parquet")} == {0o600}
    for table in ("gpu_1m", "gpu_1h"):
        (found,) = lake.ask(root, "lab", query.format(table)).rows
        assert found == pytest.approx(expected)


def test_the_questions_find_what_is_there(root: Path) -> None:
    def rows_of(name: str) -> list[tuple[Any, ...]]:
        return list(lake.ask(root, "lab", lake.query_of(name)).rows)

    assert [row[0] for row in rows_of("idle-gpus")] == ["3"]
    assert {row[0] for row in rows_of("slow-nodes")} == {"n3", "n5", "n7"}
    assert {row[:2] for row in rows_of("throttled")} == {("n3", 1), ("n5", 1), ("n7", 1)}
    assert {row[2] for row in rows_of("errors")} == {1}
    assert len(rows_of("errors")) == 8, "those of the running job too"


def test_what_is_being_merged_counts_once(tmp_path: Path) -> None:
    record = made_logbooks.job(program_ended_ns=None)
    logbook = made_logbooks.write(tmp_path, record, [])
    writer = SegmentWriter(logbook, "node1")
    for second in range(4):
        writer.append("gpu", made_logbooks.row("node1", 0, second, power_w=400.0))
        writer.flush()
    merging.merge_node(logbook, "node1", new=True)
    assert len(list(logbook.family("gpu").iterdir())) == 5, "readers of the small segments may go on"
    assert lake.ask(tmp_path, "lab", "SELECT count(*) FROM gpu").rows == ((4,),)


def test_days_without_roll_ups_are_found(root: Path) -> None:
    after = date.fromordinal(DAY.toordinal() + 2)
    assert list(rollups.missing_days(root, "lab", 2, after)) == [date.fromordinal(DAY.toordinal() + 1)]
    assert rollups.write(root, "lab", date(2020, 1, 1), Archive(root).seen_by(OPERATOR)) == 0
    assert not list(root.glob("lab/rollup/*/2020-01-01.parquet"))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("DROP VIEW gpu", "give one SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", "cannot be run"),
        ("SELECT nothing FROM gpu", "cannot be run"),
    ],
)
def test_only_questions_about_the_lake_are_answered(root: Path, query: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        lake.ask(root, "lab", query)


def test_the_command_asks_and_translates(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIOLET_ROOT", str(root))
    monkeypatch.setenv("PIOLET_CLUSTER", "lab")
    assert run_command(["watch", "lake"]) == 0
    assert "slow-nodes" in capsys.readouterr().out
    assert run_command(["watch", "lake", "idle-gpus"]) == 0
    assert "ada" in capsys.readouterr().out
    assert run_command(["watch", "lake", "io-waits", "--clickhouse", "s3Cluster('c', 'https://s3/{path}')"]) == 0
    said = capsys.readouterr().out
    assert "s3Cluster(" in said
    assert "https://s3//" in said
    assert "quantileExactInclusive(0.9)" in said
    assert run_command(["watch", "lake", "EXPLAIN SELECT count(*) FROM gpu"]) == 0
    assert run_command(["watch", "lake", "idle"]) == 2
    assert "idle-gpus" in capsys.readouterr().err
    assert run_command(["watch", "rollup", "--days", "1"]) == 0
    assert "0 jobs" in capsys.readouterr().out
