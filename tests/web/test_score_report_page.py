"""The report in a real browser: it loads nothing, says nothing on the console and fits every width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import made_logbooks
import made_runs
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from piolet.cli.main import run_command
from piolet.score import write_report

pytestmark = pytest.mark.web

WIDTHS = (390, 768, 1280)


@dataclass
class Watched:
    """A page with what it asked of the network and said on the console."""

    page: Page
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(made_logbooks.training(tmp_path_factory.mktemp("web")))


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    page = browser.new_page()
    found = Watched(page)
    page.on("request", lambda request: found.requests.append(request.url))
    page.on("console", lambda message: found.said.append(message.text))
    page.on("pageerror", lambda error: found.said.append(str(error)))
    yield found
    page.close()


def overflow(page: Page) -> int:
    found = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return int(found)


def colours(page: Page, picture: bytes) -> int:
    """How many different colours a screenshot has, counted by the browser itself."""
    count = """async (bytes) => {
        const image = await createImageBitmap(new Blob([new Uint8Array(bytes)], {type: "image/png"}));
        const canvas = new OffscreenCanvas(image.width, image.height), context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        return new Set(new Uint32Array(context.getImageData(0, 0, image.width, image.height).data.buffer)).size;
    }"""
    return int(page.evaluate(count, list(picture)))


@pytest.mark.parametrize("width", WIDTHS)
def test_it_loads_nothing_and_fits(watched: Watched, report: Path, width: int) -> None:
    page = watched.page
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(report.as_uri())
    assert [url for url in watched.requests if not url.startswith("data:")] == [report.as_uri()]
    assert watched.said == []
    assert overflow(page) <= 0
    assert colours(page, page.screenshot()) > 50


def test_its_outline_reads_from_top_to_bottom(watched: Watched, report: Path) -> None:
    page = watched.page
    page.goto(report.as_uri())
    assert page.locator("h1").all_inner_texts() == ["first-climb"]
    assert page.locator("h2").all_inner_texts() == [
        "Three things to try",
        "Where the GPU time went",
        "What holds it back",
        "Over time",
        "Phase by phase",
        "Every GPU",
        "GPU by GPU",
        "Storage",
        "Network, energy",
        "Nodes: vetted, refused, swapped",
        "How good the data is",
        "What ran",
        "How to read this",
    ]
    assert page.get_by_role("main").count() == 1
    unnamed = (
        "svg[role=img]:not([aria-label]), img:not([alt]), section:not([aria-labelledby]), [role=img]:not([aria-label])"
    )
    assert page.locator(unnamed).count() == 0
    assert page.locator("[aria-label='Table of GPUs'] tbody tr").count() == 16


def test_the_waterfall_ends_at_the_score(watched: Watched, report: Path) -> None:
    page = watched.page
    page.goto(report.as_uri())
    shown = page.locator(".figure strong").inner_text()
    assert page.locator(".steps li:last-child .value b").inner_text() == shown
    left = page.locator(".steps .left").evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().width)")
    assert left == sorted(left, reverse=True)
    assert len(left) == 5


def test_values_are_read_off_the_plots(watched: Watched, report: Path) -> None:
    page = watched.page
    page.goto(report.as_uri())
    plot = page.locator("figure.compute .plot")
    plot.scroll_into_view_if_needed()
    plot.hover()
    assert page.locator("figure.compute output").inner_text().startswith("1:40: ")
    page.mouse.move(1, 1)
    assert page.locator("figure.compute output").inner_text() == ""


def test_a_hostile_job_runs_nothing(watched: Watched, tmp_path: Path) -> None:
    evil = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    job = made_logbooks.job(name=evil, command=(evil,), user=evil)
    rows = made_logbooks.constant(job, 5, tensor_active=0.5, dram_active=0.1)
    page = watched.page
    page.goto(write_report(made_logbooks.write(tmp_path, job, rows)).as_uri())
    assert page.title().startswith("<script>")
    assert page.locator("h1").inner_text() == evil
    assert page.locator("script").count() == 2
    assert watched.said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_empty_job_reads_well(watched: Watched, tmp_path: Path, scheme: str) -> None:
    page = watched.page
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(write_report(made_logbooks.write(tmp_path, made_logbooks.job(), [])).as_uri())
    assert page.locator(".figure strong").inner_text() == "no score"
    assert overflow(page) <= 0
    assert watched.said == []


def test_a_proposal_is_two_pages_on_paper_and_fits_a_phone(watched: Watched, tmp_path: Path) -> None:
    books = made_runs.scaling(tmp_path, [1] * 5 + [2, 3, 4, 5, 6, 7, 8, 9], seconds=12, gpus=1)
    page, pdf = tmp_path / "p.html", tmp_path / "p.pdf"
    argv = ["score", "proposal", *(str(book.path) for book in books), "--html", str(page), "--pdf", str(pdf)]
    assert run_command(argv) == 0
    assert pdf.read_bytes().count(b"/Type /Page\n") == 2
    watched.page.set_viewport_size({"width": 390, "height": 800})
    watched.page.goto(page.as_uri())
    assert overflow(watched.page) <= 0
    assert watched.said == []


def test_it_says_everything_without_colour(watched: Watched, report: Path) -> None:
    """What colours tell is told by words or by hatching as well: in grey the page has the same marks."""
    page = watched.page
    page.goto(report.as_uri())
    grey = page.locator(".steps .largest .value span").inner_text()
    assert "largest loss" in grey
    assert page.locator(".steps .largest .lost").evaluate("bar => getComputedStyle(bar).backgroundImage") != "none"
    assert page.locator("tr.behind th").evaluate("cell => getComputedStyle(cell, '::after').content") == '" behind"'
    assert page.locator(".nodes .refused .role").inner_text() == "refused"
    assert page.locator(".cells i").first.evaluate("hole => getComputedStyle(hole).backgroundImage") != "none"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_screen_reader_finds_no_fault(watched: Watched, report: Path, scheme: str) -> None:
    """The rules of axe-core for WCAG 2.2 AA, contrast included."""
    watched.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    watched.page.goto(report.as_uri())
    found = Axe().run(watched.page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]})
    assert [(each["id"], [node["target"] for node in each["nodes"]]) for each in found.response["violations"]] == []


def test_it_prints_on_a_few_pages(watched: Watched, report: Path) -> None:
    watched.page.goto(report.as_uri())
    pdf = watched.page.pdf(format="A4", print_background=True)
    assert pdf.startswith(b"%PDF")
    assert 2 <= pdf.count(b"/Type /Page\n") <= 6
