"""Jobs of many nodes: groups, their page, and what a job's page knows of one while the rest is computed."""

from __future__ import annotations

import re
import shutil
from typing import Any

import made_logbooks
import pytest

from piolet.logbook.layout import Logbook
from piolet.logbook.records import Outcome, write_outcome
from piolet.web import glance, views
from piolet.web.glance import grouped

NODES = [f"nid{number:03d}" for number in range(70)]
JOB = "/jobs/lab/4711"


@pytest.fixture(scope="session")
def made_large(tmp_path_factory: pytest.TempPathFactory) -> Logbook:
    """A job of 70 nodes, of which one does half of what the others do; it was ended on a hang."""
    root = tmp_path_factory.mktemp("large")
    record = made_logbooks.job(NODES, 2, 4, user="ada")
    rows = [
        row | {"sm_active_ratio": 0.4, "tensor_active_ratio": 0.2} if row["node"] == "nid067" else row
        for _, row in made_logbooks.constant(
            record, 4, sm_active=0.8, tensor_active=0.4, dram_active=0.1, power_w=500.0, gr_engine_active=1.0
        )
    ]
    logbook = made_logbooks.write(root, record, [("gpu", row) for row in rows])
    write_outcome(logbook.outcome, Outcome("FAILED", 1, "no work for 300 s", aborted_on="hang"))
    logbook.stacks.mkdir()
    (logbook.stacks / "nid003.txt").write_text("== rank 3, pid 7: python train.py\n<module> (train.py:4)")
    return logbook


@pytest.fixture
def large(site: Any, made_large: Logbook) -> None:
    shutil.copytree(made_large.path, site.root / "lab" / "4711")


def test_nodes_are_grouped_by_rack_then_in_order() -> None:
    nodes = [f"nid{number:03d}" for number in range(130)]
    groups = list(grouped(nodes, {"r1": "nid[100-129]", "r0": "nid[000-079]", "elsewhere": "x[1-4]"}))
    assert [(group.name, len(group.nodes)) for group in groups] == [
        ("r0: nid000 to nid063", 64),
        ("r0: nid064 to nid079", 16),
        ("r1", 30),
        ("nid080 to nid099", 20),
    ]
    assert sorted(node for group in groups for node in group.nodes) == nodes


@pytest.mark.usefixtures("large")
def test_a_large_job_is_looked_into_group_by_group(site: Any) -> None:
    ada = site.visitor("ada")
    page = ada.get(JOB, headers={"X-Fragment": "1"}).text
    row = next(row for row in re.findall(r"<tr.*?</tr>", page, re.DOTALL) if "nid064 to nid069" in row)
    assert "nid067" in row, "the lowest node of the group is named"
    group = ada.get(f"{JOB}/nodes?group=nid067").text
    assert "<h1>nid064 to nid069</h1>" in group
    assert group.index(">nid067<", group.index("<h2")) < group.index(">nid065<"), "the least saturated comes first"
    data = ada.get(f"{JOB}/series?metric=gpu.sm_active_ratio&split=node&group=nid064").json()
    means = {line["name"]: line["mean"][0] for line in data["lines"]}
    assert (len(means), means["nid067"], means["nid068"]) == (6, 0.4004, 0.8008)
    assert min(data["band"]["low"]) == 0.4004
    assert "group <a" in ada.get(f"{JOB}/nodes/nid067").text
    assert ada.get(f"{JOB}/nodes?group=nobody").status_code == 404
    assert ada.get(f"{JOB}/series?metric=gpu.power_w&split=node").status_code == 404, "70 lines are no plot"


@pytest.mark.usefixtures("large")
def test_a_job_that_does_not_fit_is_still_shown(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def huge(book: Any) -> Any:
        book.reader.database.execute("SET memory_limit = '20MB'")
        return book.reader.database.execute("SELECT list(range) FROM range(50000000)").fetchall()

    monkeypatch.setattr(views, "job_view", huge)
    page = site.visitor("ada").get(JOB, headers={"X-Fragment": "1"}).text
    assert "do not fit into the 2GB" in page
    assert "nid064 to nid069" in page


@pytest.mark.usefixtures("large")
def test_what_was_recorded_of_an_end_is_told(site: Any) -> None:
    ada = site.visitor("ada")
    page = ada.get(JOB, headers={"X-Fragment": "1"}).text
    assert "Ended early by Piolet, on hang." in page
    assert f"{JOB}/stacks/nid003" in page
    assert "rank 3, pid 7" in ada.get(f"{JOB}/stacks/nid003").text
    assert ada.get(f"{JOB}/stacks/nid004").status_code == 404


def whole(visitor: Any, path: str) -> str:
    """Return a job's page as its script completes it: without the fragment before, a busy machine may send less."""
    visitor.get(path, headers={"X-Fragment": "1"})
    return visitor.get(path).text


def test_containers_advice_and_phases_are_told(site: Any) -> None:
    made_logbooks.training(site.root, gpus=1, scale=0.4)
    page = whole(site.visitor("ada"), JOB)
    assert "libnccl-net.so" in page
    assert "What to try" in page
    assert "Phase by phase" in page
    assert "libnccl-net.so" in site.visitor("ada").get(f"{JOB}/nodes/node5").text


def test_only_the_latest_digests_are_kept(site: Any, make_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glance, "MOST_DIGESTS", 2)
    make_job(site.root, "3", user="root")
    root = site.visitor("root")
    for job in ("1", "2", "3", "1"):
        assert root.get(f"/jobs/lab/{job}/series?metric=gpu.power_w").json()["coverage"] == 1.0
    assert [job for _, job in site.app.state.glances._digests] == ["3", "1"]


def test_a_page_without_samples_says_so(site: Any) -> None:
    made_logbooks.write(site.root, made_logbooks.job(job_id="9", user="ada"), [])
    assert "Nothing was recorded." in whole(site.visitor("ada"), "/jobs/lab/9")
