from __future__ import annotations

from pathlib import Path

import made_logbooks
import pytest

import piolet
from piolet.core.errors import UsageError
from piolet.core.nouns import Interval
from piolet.logbook.layout import Logbook
from piolet.watch import Book, Metric, Split
from piolet.watch.archive import open_logbook

START, SECOND = made_logbooks.START_NS, made_logbooks.SECOND_NS
POWER = Metric("gpu", "power_w")


def book_of(root: Path, rows: list[tuple[str, dict[str, object]]], seconds: float = 100.0, **changes: object) -> Book:
    return open_logbook(made_logbooks.write(root, made_logbooks.job(seconds=seconds, **changes), rows))


def test_down_sampling_keeps_the_peak(tmp_path: Path) -> None:
    rows = [
        ("gpu", made_logbooks.row("node1", 0, each, power_w=1000.0 if each == 57 else 100.0)) for each in range(100)
    ]
    with book_of(tmp_path, rows) as book:
        series = book.series(POWER, points=10)
    (line,) = series.lines
    assert series.width_ns == 10 * SECOND
    assert line.times_ns == tuple(START + each * 10 * SECOND for each in range(10))
    assert max(line.high) == 1000
    assert line.high.index(1000) == 5
    assert line.low == (100.0,) * 10
    assert line.mean[5] == pytest.approx(190)
    assert line.samples == (10,) * 10
    assert series.coverage_ratio == 1
    assert series.metric.unit == "W"


def test_a_hole_stays_a_hole_and_lowers_the_coverage(tmp_path: Path) -> None:
    rows = [("gpu", made_logbooks.row("node1", 0, each, power_w=1.0)) for each in range(100) if not 30 <= each < 50]
    with book_of(tmp_path, rows) as book:
        series = book.series(POWER, points=10)
        (presence,) = [each for each in book.quality().presence if each.family == "gpu"]
    assert [time for time in series.lines[0].times_ns if START + 30 * SECOND <= time < START + 50 * SECOND] == []
    assert series.coverage_ratio == pytest.approx(0.8)
    assert presence.coverage_ratio == pytest.approx(0.8)
    assert presence.gaps == (Interval(START + 30 * SECOND, START + 50 * SECOND),)


def test_ratios_that_are_none_are_blanks(tmp_path: Path) -> None:
    values = [0.5, 42.0, None, 1.0]
    rows = [("gpu", made_logbooks.row("node1", 0, each, sm_active=value)) for each, value in enumerate(values)]
    with book_of(tmp_path, rows, 4.0) as book:
        line = book.series(Metric("gpu", "sm_active_ratio")).lines[0]
        quality = book.quality()
    assert line.high == (0.5, 1.0)
    assert quality.blanks["gpu", "sm_active_ratio"] == 2
    assert ("gpu", "power_w") in quality.never
    assert ("host", "") in quality.never


def test_each_split_has_its_lines(training: Logbook) -> None:
    with open_logbook(training) as book:
        names = {split: [line.name for line in book.series(POWER, split=split).lines] for split in Split}
        loss = book.series(Metric("user", "loss"))
        assert Metric("user", "loss") in book.metrics()
        assert Metric("host", "cpu_busy_ratio") in book.metrics()
    assert names == {
        Split.JOB: ["job"],
        Split.NODE: ["node1", "node3"],
        Split.DEVICE: ["node1:0", "node1:1", "node3:0", "node3:1"],
    }
    assert loss.lines[0].mean[0] > loss.lines[0].mean[-1]
    assert loss.metric.unit == ""


def test_an_interval_is_a_zoom(training: Logbook) -> None:
    span = Interval(START + 20 * SECOND, START + 30 * SECOND)
    with open_logbook(training) as book:
        series = book.series(POWER, interval=span, points=100)
    assert series.width_ns == SECOND
    assert series.lines[0].times_ns[0] == span.start_ns
    assert len(series.lines[0].times_ns) == 10


def test_the_quality_tells_what_happened_to_the_data(training: Logbook) -> None:
    with open_logbook(training) as book:
        quality = book.quality()
    assert quality.restarts == {"node3": 1}
    assert {source for _, source, _ in quality.unavailable} == {"nic"}
    assert {each.node for each in quality.incomplete} == {"node3"}
    assert quality.incomplete[0].gaps[0].duration_s == pytest.approx(7, abs=1)
    assert 0.9 < (quality.coverage("gpu") or 0) < 1


def test_late_early_resets_drops_and_clocks(tmp_path: Path) -> None:
    rows = [("gpu", made_logbooks.row("node1", 0, each, energy_j=float(each % 30))) for each in range(20, 90)]
    dropped = "the logbook could not be written for 4 s (full); 12 rows dropped"
    rows.append(("events", {"time_ns": START, "node": "node1", "kind": "agent", "code": "dropped", "message": dropped}))
    logbook = made_logbooks.write(tmp_path, made_logbooks.job(seconds=100.0), rows)
    (logbook.vet / "before.jsonl").write_text(
        '{"check": "clock", "node": "node1", "status": "pass", "reason": "", "value": 0.004, "unit": "s"}\n'
    )
    with open_logbook(logbook) as book:
        quality = book.quality()
    (presence,) = [each for each in quality.presence if each.family == "gpu"]
    assert (presence.late_s, presence.early_s) == (19, 10)
    assert quality.resets == {("node1", "0", "energy_j"): 2}
    assert quality.dropped_rows == 12
    assert quality.clock_offset_s == {"node1": 0.004}


def test_a_running_job_ends_at_its_newest_sample(tmp_path: Path) -> None:
    rows = [("gpu", made_logbooks.row("node1", 0, each, power_w=1.0)) for each in range(10)]
    with book_of(tmp_path, rows, program_ended_ns=None) as book:
        assert book.interval == Interval(START, START + 10 * SECOND)
        assert book.outcome() is None


def test_a_job_without_samples_says_so(tmp_path: Path) -> None:
    with book_of(tmp_path, [], program_ended_ns=None) as book:
        assert book.interval is None
        with pytest.raises(UsageError, match="nothing was recorded"):
            book.series(POWER)
        assert book.quality().presence == ()


@pytest.mark.parametrize("metric", [Metric("gpus", "power_w"), Metric("gpu", "power"), Metric("gpu", 'x" FROM host')])
def test_an_unknown_metric_is_named(training: Logbook, metric: Metric) -> None:
    with open_logbook(training) as book, pytest.raises(UsageError):
        book.series(metric)


def test_events_keep_the_grave_ones(training: Logbook) -> None:
    with open_logbook(training) as book:
        assert [event.code for event in book.events(most=2)] == ["thermal", "restart"]
        assert {event.kind for event in book.events(kinds=("phase",))} == {"phase"}


def test_a_table_is_lazy_and_knows_its_units(training: Logbook) -> None:
    with open_logbook(training) as book:
        table = book.table("gpu")
        assert table.units["power_w"] == "W"
        assert table.units["nvlink_tx_bytes_per_s"] == "B/s"
        assert "gpu" not in table.units
        assert table.where("gpu = 1 AND node = 'node1'").relation.count("*").fetchall() == [(100,)]
        with pytest.raises(UsageError, match="no family"):
            book.table("gpux")


def test_piolet_open_finds_a_job_by_its_id(training: Logbook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIOLET_ROOT", str(training.path.parent.parent))
    with piolet.open(training.path.name) as book:
        assert book.job.user == "ada"


def test_frames_for_data_scientists(training: Logbook) -> None:
    with open_logbook(training) as book:
        table = book.table("gpu").where("gpu = 0")
        pandas = table.pandas()
        polars = table.polars()
    assert pandas.attrs["units"]["power_w"] == "W"
    assert 0.9 < pandas.attrs["coverage_ratio"] < 1
    assert polars["power_w"].mean() == pytest.approx(pandas["power_w"].mean())
    assert len(polars) == len(pandas) > 100
