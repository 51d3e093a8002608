"""The web application in a real browser, served by the real command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import made_fleets
import made_logbooks
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from piolet.core.files import write_text
from piolet.logbook.layout import create
from piolet.logbook.records import Outcome, write_job, write_outcome
from piolet.logbook.writer import SegmentWriter

pytestmark = pytest.mark.web

LINK = re.compile(r"http://127\.0\.0\.1:\d+/login\?token=\S+")
JOB = "/jobs/lab/4711"
LARGE = "/jobs/lab/large"
SQL = "/sql?job=lab/4711&q=SELECT+time_ns,+power_w+FROM+gpu+WHERE+node='node1'+AND+gpu=0+ORDER+BY+1"
COMPARE = "/compare?a=lab/4711&b=lab/4711"


@dataclass
class Served:
    """A running server, a page that is logged in, and what the page complained about."""

    root: Path
    address: str
    page: Page
    said: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        self.page.goto(self.address + path)
        return self.page


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    root = tmp_path_factory.mktemp("root")
    made_logbooks.training(root)
    large_job(root)
    database, policy = made_fleets.suspect(root)
    fleet = {"PIOLET_FLEET_DATABASE": str(database), "PIOLET_FLEET_POLICY": str(policy)}
    process = subprocess.Popen(
        [sys.executable, "-m", "piolet", "web", "--port", "0"],
        env=os.environ | fleet | {"PIOLET_ROOT": str(root), "XDG_DATA_HOME": str(root / "data")},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        yield root, process
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in {0, 130}


def large_job(root: Path) -> None:
    """A job of so many nodes that it is shown by groups; it hung."""
    nodes = [f"nid{number:03d}" for number in range(66)]
    record = made_logbooks.job(nodes, 1, 3, job_id="large")
    logbook = create(root, "lab", "large")
    for node in nodes:
        writer = SegmentWriter(logbook, node)
        for second in range(3):
            values = {"sm_active": 0.8, "tensor_active": 0.5, "dram_active": 0.2, "power_w": 400.0}
            writer.append("gpu", made_logbooks.row(node, 0, second + 0.5, **values))
        writer.flush()
    write_text(logbook.stacks / "nid065.txt", "== rank 65, pid 7: python train.py")
    write_job(logbook.job, record)
    write_outcome(logbook.outcome, Outcome("FAILED", 143, "no work for 300 s", aborted_on="hang"))


@pytest.fixture(scope="module")
def served(server: tuple[Path, subprocess.Popen[str]], browser: Browser) -> Iterator[Served]:
    root, process = server
    assert process.stderr
    link = LINK.search(process.stderr.readline())
    assert link
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    found = Served(root, link[0].split("/login")[0], page)
    page.on("console", lambda message: found.said.append(message.text))
    page.on("pageerror", lambda error: found.said.append(str(error)))
    page.goto(link[0])
    yield found
    page.close()


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@pytest.mark.parametrize(
    "path",
    [
        *("/", JOB, f"{JOB}/nodes", f"{JOB}/nodes/node5", "/nodes/lab/node5", "/jobs/lab/none", SQL, COMPARE),
        *(LARGE, f"{LARGE}/nodes?group=nid065", f"{LARGE}/stacks/nid065"),
    ],
)
def test_pages_are_accessible_quiet_and_fit(served: Served, path: str) -> None:
    """In both themes; on a phone, a tablet and a desk."""
    page = served.open(path)
    expect(page.locator("[data-missing], [data-follow=reload]")).to_have_count(0)
    for _ in range(2):
        results = Axe().run(page)
        assert results.violations_count == 0, results.generate_report()
        page.locator("[data-theme-button]").click()
    for width in (390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert overflow(page) <= 0
    assert [said for said in served.said if "404" not in said] == []


def test_from_a_large_job_to_a_node_by_keys(served: Served) -> None:
    """Group, node; a range in the address is kept on the way."""
    page = served.open(f"{LARGE}?from=0.5&to=2.0")
    expect(page.get_by_role("link", name="nid000 to nid063")).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("nid064 to nid065")
    plot = page.locator("[data-plot*=power_w]")
    plot.scroll_into_view_if_needed()
    expect(plot.locator("canvas")).to_be_visible()
    assert "in 2 lines" in (plot.get_attribute("aria-label") or "")
    heat = page.locator("[data-heat]")
    box = heat.bounding_box()
    assert box
    heat.click(position={"x": box["width"] / 2, "y": box["height"] * 0.75})
    expect(page.get_by_role("heading", level=1)).to_have_text("nid065")
    page.get_by_role("link", name="nid064 to nid065").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("nid064 to nid065")


def test_from_the_list_to_a_gpu(served: Served) -> None:
    served.page.set_viewport_size({"width": 1280, "height": 900})
    page = served.open("/")
    page.get_by_role("link", name="lab/4711").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("first-climb")
    expect(page.get_by_text("45 %").first).to_be_visible()
    page.get_by_role("link", name="node5:2").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("node5")
    expect(page.locator(".plot canvas").first).to_be_visible()


def test_a_range_is_kept_in_the_address(served: Served) -> None:
    served.page.set_viewport_size({"width": 1280, "height": 900})
    page = served.open(JOB)
    page.locator(".plot").first.scroll_into_view_if_needed()
    plot = page.locator(".plot .u-over").first
    expect(plot).to_be_visible()
    box = plot.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 30, steps=4)
    page.mouse.up()
    page.wait_for_url(re.compile(r"from=\d"))
    query = parse_qs(urlsplit(page.url).query)
    assert 20 < float(query["to"][0]) - float(query["from"][0]) < 80, "a quarter of 200 s, give or take the margins"
    page.reload()
    expect(page.locator("[data-reset]")).to_be_visible()
    page.keyboard.press("0")
    page.wait_for_url(re.compile(r"4711$"))


def test_a_finding_leads_to_the_plot_of_its_evidence(served: Served) -> None:
    served.page.set_viewport_size({"width": 1280, "height": 900})
    page = served.open(JOB)
    finding = page.locator(".findings li", has_text="GPU slowed down by heat: node5:2")
    finding.get_by_text("Evidence").click()
    finding.get_by_role("link", name="SM clock").click()
    page.wait_for_url(re.compile(r"/nodes/node5\?plot=gpu\.sm_clock_hz&from=\d"))
    clock = page.locator("[data-plot*=sm_clock_hz]")
    clock.scroll_into_view_if_needed()
    expect(clock.locator("canvas")).to_be_visible()
    expect(page.locator("[data-reset]")).to_be_visible()


def test_a_notebook_opens_from_the_job(served: Served) -> None:
    page = served.open(JOB)
    page.get_by_role("button", name="Notebook").click()
    link = page.get_by_role("link", name="Open the notebook")
    expect(link).to_be_visible(timeout=60_000)
    address = link.get_attribute("href")
    assert address
    with urllib.request.urlopen(address) as answer:  # noqa: S310 - a server that ours has started
        assert "marimo" in answer.read().decode()
    with urllib.request.urlopen(address.split("?")[0]) as answer:  # noqa: S310 - same
        assert "/auth/login" in answer.url, "without its token it shows nothing"
    assert "piolet.open" in (served.root / "data/piolet/notebooks/lab-4711.py").read_text()


def test_a_node_has_a_page_across_jobs(served: Served) -> None:
    page = served.open(f"{JOB}/nodes/node2")
    page.get_by_role("link", name="node2 in other jobs").click()
    expect(page.get_by_role("heading", name="1 job held it")).to_be_visible()
    expect(page.get_by_text("xid: GPU 1 reported Xid 79")).to_be_visible()


def test_all_nodes_are_a_list(served: Served) -> None:
    page = served.open(f"{JOB}/nodes")
    page.get_by_role("searchbox").fill("node2")
    expect(page.get_by_role("row", name="node2")).to_contain_text("fallen off the bus")
    expect(page.get_by_text("1 node", exact=True)).to_be_visible()


def test_searching_narrows_the_list_as_one_types(served: Served) -> None:
    page = served.open("/")
    page.keyboard.press("/")
    page.keyboard.type("nothing-like-it")
    expect(page.get_by_text("No job that you may see matches")).to_be_visible()
    page.wait_for_url(re.compile("text=nothing-like-it"))


def test_rows_answer_to_keys(served: Served) -> None:
    page = served.open("/")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(JOB))


def test_another_quantity_is_a_choice_away(served: Served) -> None:
    page = served.open(JOB)
    before = page.locator("[data-plot]").count()
    page.get_by_label("Another quantity").select_option("gpu.memory_used_bytes")
    page.get_by_role("button", name="Plot it").click()
    expect(page.locator("[data-plot]")).to_have_count(before + 1)


def test_a_running_job_is_followed_to_its_end(served: Served) -> None:
    record = made_logbooks.job(["node1"], 1, 30, job_id="live", program_ended_ns=None)
    logbook = made_logbooks.write(served.root, record, [])
    page = served.open("/jobs/lab/live")
    expect(page.get_by_text("running", exact=True)).to_be_visible()
    writer = SegmentWriter(logbook, "node1")
    for second in range(30):
        values = {"sm_active": 0.8, "tensor_active": 0.465, "dram_active": 0.2, "gr_engine_active": 1.0}
        writer.append("gpu", made_logbooks.row("node1", 0, second + 0.5, **values))
    writer.flush()
    expect(page.locator(".facts .big")).to_contain_text("50 %", timeout=15000)
    write_outcome(logbook.outcome, Outcome("FAILED", 1, reason="the program ended with 1"))
    expect(page.get_by_text("failed", exact=True)).to_be_visible(timeout=15000)


def test_the_report_and_the_data_are_there(served: Served) -> None:
    page = served.open(JOB)
    cookie = "; ".join(f"{each['name']}={each['value']}" for each in page.context.cookies())
    asked = urllib.request.Request(  # noqa: S310 - the address of our own server
        f"{served.address}{JOB}/series?metric=gpu.power_w", headers={"Cookie": cookie}
    )
    with urllib.request.urlopen(asked) as answer:  # noqa: S310 - same
        data = json.load(answer)
    assert data["unit"] == "W"
    assert len(data["times"]) == len(data["lines"][0]["mean"])
    page.get_by_role("link", name="Report").click()
    expect(page.get_by_role("heading", name="Where the GPU time went")).to_be_visible()


@pytest.mark.parametrize("path", ["/fleet", "/fleet/incidents", "/fleet/rules", "/fleet/nodes/node07"])
def test_the_fleet_is_accessible_and_fits(served: Served, path: str) -> None:
    page = served.open(path)
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert overflow(page) <= 0


def test_an_operator_holds_a_node_with_a_click(served: Served) -> None:
    page = served.open("/fleet")
    orders = page.get_by_role("form", name="Orders for node07")
    orders.get_by_label("Why").fill("in a demonstration")
    orders.get_by_role("button", name="Hold").click()
    expect(page.get_by_role("heading", name="node07")).to_be_visible()
    expect(page.get_by_text("ordered hold of node07: in a demonstration")).to_be_visible()
