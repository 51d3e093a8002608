from __future__ import annotations

import json
import re
import time
from itertools import chain
from pathlib import Path

import pytest
from metric_stores import Store
from running_jobs import RunningJob

from piolet.cli.main import run_command
from piolet.logbook.openmetrics import exported
from piolet.watch.dashboards import COLUMNS, DASHBOARDS, METRIC, document

LABELS = re.compile(r"(?:by|on|group_left) \(([^)]*)\)")
CHOSEN = {"$slurm_job": "4711", "$node": "node1"}


def queries(dashboard: dict) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    directory = tmp_path_factory.mktemp("grafana") / "new"
    assert run_command(["watch", "dashboards", str(directory)]) == 0
    return {path.stem: json.loads(path.read_text()) for path in directory.iterdir()}


def test_ids_are_unique_and_panels_do_not_overlap(written: dict[str, dict]) -> None:
    assert sorted(written) == ["piolet-fleet", "piolet-job", "piolet-node"]
    assert [each["uid"] for each in written.values()] == list(written)
    for dashboard in written.values():
        panels = dashboard["panels"]
        assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
        cells = [cell for panel in panels for cell in covered(panel["gridPos"])]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < COLUMNS
        for panel in panels:
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def covered(place: dict[str, int]) -> list[tuple[int, int]]:
    return [(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])]


def test_every_metric_and_label_is_exported(written: dict[str, dict]) -> None:
    known = exported()
    labels = set(chain.from_iterable(each.labels for each in known.values()))
    for query in chain.from_iterable(map(queries, written.values())):
        assert METRIC.findall(query)
        assert set(METRIC.findall(query)) <= set(known), query
        used = {name.strip() for found in LABELS.findall(query) for name in found.split(",")} - {""}
        assert used <= labels, query


def test_variables_are_those_that_queries_use(written: dict[str, dict]) -> None:
    for dashboard in written.values():
        offered = {f"${each['name']}" for each in dashboard["templating"]["list"]} - {"$datasource"}
        assert {name for query in queries(dashboard) for name in re.findall(r"\$\w+", query)} == offered


def test_units_follow_the_metrics() -> None:
    panels = chain.from_iterable(document(each)["panels"] for each in DASHBOARDS)
    units = {panel["title"]: panel["fieldConfig"]["defaults"]["unit"] for panel in panels}
    assert units["SM active"] == "percentunit"
    assert units["Power of all GPUs"] == "watt"
    assert units["NVLink of all GPUs"] == "Bps"
    assert units["GPUs"] == units["What the program reports"] == "short"


def test_every_query_runs_and_finds_what_is_there(
    written: dict[str, dict], stored: tuple[RunningJob, list[Store]]
) -> None:
    job, stores = stored
    told = set(METRIC.findall(job.text()))
    for query in chain.from_iterable(map(queries, written.values())):
        chosen = re.sub(r"\$\w+", lambda name: CHOSEN[name[0]], query)
        there = set(METRIC.findall(query)) <= told and "> 0" not in query and "increase" not in query
        for store in stores:
            while not store.query(chosen) and there:  # a scrape failed on a busy machine, or the samples grew old
                job.sample()
                time.sleep(0.2)
    assert {"piolet_gpu_sm_active_ratio", "piolet_host_cpu_busy_ratio", "piolet_user_value"} <= told


def test_a_directory_that_is_a_file_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    assert run_command(["watch", "dashboards", str(taken)]) != 0
    assert str(taken) in capsys.readouterr().err
