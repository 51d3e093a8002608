from __future__ import annotations

import html.parser
import re
import struct
import zlib
from base64 import b64decode
from pathlib import Path

import made_logbooks
import pytest

from piolet.core.errors import StorageError
from piolet.core.files import write_text
from piolet.core.nouns import Severity
from piolet.logbook.layout import Logbook
from piolet.logbook.records import Diagnosis, Findings, Outcome, write_findings, write_outcome
from piolet.score import drawing, words, write_report
from piolet.score.drawing import heat_image, holes, plot, time_ticks
from piolet.score.timeline import HeatRow, Series


@pytest.fixture(scope="module")
def page(training: Logbook, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "page.html"
    assert write_report(training, path) == path
    return path.read_text(encoding="utf-8")


class Tags(html.parser.HTMLParser):
    """The tags of a page, and whether they nest."""

    VOID = frozenset({"meta", "img", "br", "path", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [str(values["id"])] if "id" in values else []
        self.sources += [str(values[key]) for key in ("src", "href", "srcset") if key in values]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_well_formed_and_self_contained(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert len(tags.ids) == len(set(tags.ids))
    assert tags.sources
    assert all(source.startswith("data:") for source in tags.sources)
    assert "url(" not in page
    assert "@import" not in page
    assert len(page) < 1_000_000


def test_the_page_tells_the_story(page: str) -> None:
    for words_ in (
        "Simulated: GPUs.",
        "python train.py --epochs 3",
        "GPU 1 reported Xid 79",
        "took the place of node2",
        "agent restarted 1&times;",
        "7.0 s missing",
        "input stall",
        "in steady state",
        "node[1,3], 2025-12-29 09:19:56 UTC to",
        "5f2b8c0d2c9f",
        "aws_ofi_nccl: library",
        "held in the container on node[1,3]",
        "no InfiniBand device on this node",
    ):
        assert words_ in page


def test_an_early_end_and_its_stacks_are_told(tmp_path: Path) -> None:
    job = made_logbooks.job()
    logbook = made_logbooks.write(tmp_path, job, made_logbooks.constant(job, 5, tensor_active=0.5, dram_active=0.1))
    write_outcome(logbook.outcome, Outcome("FAILED", 143, "no work for 300 s", aborted_on="hang"))
    for node in ("node1", "node2"):
        write_text(logbook.stacks / f"{node}.txt", "== rank 0")
    page = write_report(logbook).read_text(encoding="utf-8")
    assert "Ended early by Piolet, on hang." in page
    assert "of node[1-2]." in page


def test_text_of_the_job_is_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    job = made_logbooks.job(name=evil, command=("python", evil), user=evil, simulated=(evil,))
    event = {"time_ns": made_logbooks.START_NS, "node": "node1", "kind": "user", "severity": "error", "message": evil}
    metric = {"time_ns": made_logbooks.START_NS, "node": "node1", "name": evil, "value": 1.0, "step": 1}
    rows = [*made_logbooks.constant(job, 5, tensor_active=0.5, dram_active=0.1), ("events", event), ("user", metric)]
    page = write_report(made_logbooks.write(tmp_path, job, rows)).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert page.count("</script>") == 2
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    ("changes", "samples", "said"),
    [
        pytest.param({}, 0, "No GPU sample was recorded", id="no samples"),
        pytest.param({"gpus": 0}, 0, "No GPU was allocated", id="no GPU"),
        pytest.param({"seconds": 2}, 2, "Where the GPU time went", id="two seconds"),
        pytest.param({"program_ended_ns": None}, 9, "has not ended", id="running"),
        pytest.param({"program_started_ns": None, "program_ended_ns": None}, 1, "has not ended", id="one sample"),
        pytest.param({"sample_interval_s": None, "allocation": ()}, 9, "allocation is unknown", id="bare"),
    ],
)
def test_odd_jobs_have_a_page_that_says_what_it_cannot_know(
    tmp_path: Path, changes: dict[str, object], samples: int, said: str
) -> None:
    job = made_logbooks.job(**changes)
    rows = made_logbooks.constant(made_logbooks.job(), samples, tensor_active=0.5, dram_active=0.1)
    page = write_report(made_logbooks.write(tmp_path, job, rows)).read_text(encoding="utf-8")
    assert said in page
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower().split()


def test_a_long_job_of_many_gpus_stays_small(tmp_path: Path) -> None:
    nodes = [f"n{number}" for number in range(40)]
    job = made_logbooks.job(nodes, 4, 3600, sample_interval_s=30.0)
    rows = [
        ("gpu", made_logbooks.row(node, index, second, tensor_active=0.3 + index / 10, dram_active=0.1, power_w=500.0))
        for node in nodes
        for index in range(4)
        for second in range(0, 3600, 30)
    ]
    with made_logbooks.in_memory(rows, tmp_path) as reader:
        made_logbooks.write_job(reader.logbook.job, job)
        from piolet.score.report import render  # noqa: PLC0415 - the one test that needs it

        page = render(reader)
    assert "The 48 lowest of 160" in page
    assert "Saturation by node" in page
    assert len(page) < 1_000_000


def test_a_report_that_cannot_be_written_is_one_clear_error(training: Logbook, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError) as caught:
        write_report(training, tmp_path / "file" / "report.html")
    assert "report.html" in str(caught.value) or "file" in str(caught.value)


def test_lines_break_where_nothing_was_observed() -> None:
    times = (0.0, 1.0, 2.0, 10.0, 11.0)
    series = Series(times, (0.5,) * 5, (0.4,) * 5, (0.6,) * 5)
    drawn = plot(series, 20.0)
    assert drawn.line == "M0.0 50.0L50.0 50.0L100.0 50.0M500.0 50.0L550.0 50.0"
    assert drawn.band.count("M") == drawn.band.count("Z") == 2


def test_a_constant_series_and_a_single_point_can_be_drawn() -> None:
    flat = drawing.fitted(Series((0.0,), (3.0,), (3.0,), (3.0,)), 10.0)
    assert flat.bottom < 3.0 < flat.top
    assert flat.line == "M0.0 50.0h1"


def test_the_heat_image_is_a_png_of_its_cells() -> None:
    image = heat_image([HeatRow("n", "n:0", (0.0, 1.0, None)), HeatRow("n", "n:1", (0.5, 0.5, 0.5))])
    png = b64decode(image.removeprefix("data:image/png;base64,"))
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24]) == (3, 2)
    start = png.index(b"IDAT") + 4
    pixels = zlib.decompress(png[start : start + struct.unpack(">I", png[start - 8 : start - 4])[0]])
    assert pixels == bytes([0, 10, 255, 0, 0, 132, 132, 132])


def test_holes_are_told_in_per_cent() -> None:
    assert holes(HeatRow("n", "n", (None, 0.1, None, None))) == [(0.0, 25.0), (50.0, 50.0)]
    assert holes(HeatRow("n", "n", (0.1, 0.2))) == []


@pytest.mark.parametrize(
    ("length_s", "texts"),
    [
        (5, ["0 s", "1 s", "2 s", "3 s", "4 s", "5 s"]),
        (200, ["0 s", "1:00", "2:00", "3:00"]),
        (7200, ["0 s", "20:00", "40:00", "1:00:00", "1:20:00", "1:40:00", "2:00:00"]),
        (0, []),
    ],
)
def test_time_ticks(length_s: float, texts: list[str]) -> None:
    assert [tick.text for tick in time_ticks(length_s)] == texts


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (words.percent(None), words.NOTHING),
        (words.percent(0.0), "0\u00a0%"),
        (words.percent(0.0312), "3.1\u00a0%"),
        (words.percent(0.4512), "45\u00a0%"),
        (words.duration(None), words.NOTHING),
        (words.duration(2.04), "2.0 s"),
        (words.duration(59.7), "1 min"),
        (words.duration(200), "3 min 20 s"),
        (words.duration(7500), "2 h 05 min"),
        (words.energy(None), words.NOTHING),
        (words.energy(900), "900 J"),
        (words.energy(1_268_434), "352 Wh"),
        (words.energy(7.2e9), "2 MWh"),
        (str(drawing.nice_top(531)), "800.0"),
        (str(drawing.nice_top(0)), "1.0"),
    ],
)
def test_numbers_in_words(found: str, text: str) -> None:
    assert found == text


def test_findings_come_before_the_label(tmp_path: Path) -> None:
    logbook = made_logbooks.training(tmp_path)
    found = Diagnosis(
        rule="thermal",
        title="GPU slowed down by heat",
        severity=Severity.WARNING,
        confidence=0.95,
        from_ns=made_logbooks.START_NS,
        to_ns=made_logbooks.START_NS + 1,
        reason="slowed down at 88 °C <b>",
        next_step="tell the operators",
        refuted_by="its neighbours are as hot",
        nodes=("node5",),
        gpu=2,
    )
    write_findings(logbook.findings, Findings(1, complete=True, findings=(found,)))
    page = write_report(logbook).read_text(encoding="utf-8")
    assert page.index("node5:2: GPU slowed down by heat") < page.index("<dt>Label</dt>")
    assert "88 °C &lt;b&gt;" in page
