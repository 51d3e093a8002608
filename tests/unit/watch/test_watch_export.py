from __future__ import annotations

import socket
import struct
import threading
import time
from pathlib import Path

import httpx2
import made_logbooks
import pytest
from metric_stores import Store
from running_jobs import GPUS, NODES, RunningJob, made

from piolet.cli.main import run_command
from piolet.core.errors import PioletError, UsageError
from piolet.logbook.layout import Logbook
from piolet.logbook.merging import merge_node
from piolet.logbook.openmetrics import LATEST_S, exported
from piolet.logbook.records import Outcome, write_outcome
from piolet.logbook.writer import SegmentWriter
from piolet.watch import exporter
from piolet.watch.book import Book

TWELVE_DIGITS = 1e-11
"""VictoriaMetrics keeps no more."""


@pytest.fixture
def job(tmp_path: Path) -> RunningJob:
    return made(tmp_path)


def test_series_have_no_job_and_the_info_series_has(job: RunningJob) -> None:
    at_ns = job.sample()
    lines = job.text().splitlines()
    assert f'piolet_host_cpu_busy_ratio{{node="node1"}} 0.25 {at_ns // 10**6}' in lines
    assert f'piolet_user_value{{node="node2",rank="0",name="the \\"loss\\""}} 2.5 {at_ns // 10**6}' in lines
    about = 'slurm_job="4711",cluster="lab",user="ada",account="climate",name="first-climb"'
    assert f'piolet_job_info{{node="node1",{about}}} 1' in lines
    assert f'piolet_job_gpu_info{{node="node2",gpu="1",uuid="GPU-node2-1",{about}}} 1' in lines
    assert "# TYPE piolet_gpu_energy_j counter" in lines
    assert "# TYPE piolet_gpu_power_w gauge" in lines
    (power,) = (
        line for line in lines if line.startswith('piolet_gpu_power_w{node="node1",gpu="0",uuid="GPU-node1-0"}')
    )
    assert power.endswith(f" {at_ns // 10**6}")


def test_blanks_and_old_samples_are_not_told(job: RunningJob) -> None:
    writer = SegmentWriter(job.logbook, "node1")
    now_ns = time.time_ns()
    writer.append("gpu", made_logbooks.row("node1", 0, 0, sm_active=None, power_w=300) | {"time_ns": now_ns})
    old = {"time_ns": now_ns - round((LATEST_S + 60) * 1e9), "node": "node1", "cpu_busy_ratio": 0.5}
    writer.append("host", old)
    writer.close()
    text = job.text()
    assert "piolet_gpu_power_w{" in text
    assert "sm_active" not in text
    assert "piolet_host" not in text


def test_every_metric_has_its_own_name_and_labels() -> None:
    known = exported()
    assert known["piolet_gpu_power_w"].labels == ("node", "gpu", "uuid")
    assert not [name for name in known if name.startswith(("piolet_proc", "piolet_events"))]
    assert not [each for each in known.values() if "job" in each.labels]


@pytest.mark.parametrize("column", ["power_w", "sm_active_ratio", "energy_j"])
def test_stores_have_what_the_logbook_has(stored: tuple[RunningJob, list[Store]], column: str) -> None:
    job, stores = stored
    expected = job.raw(column)
    assert sorted(map(len, expected.values())) == [3] * len(NODES) * GPUS
    prometheus, victoria = (store.raw(f"piolet_gpu_{column}") for store in stores)
    assert prometheus == expected
    assert victoria == {series: pytest.approx(values, rel=TWELVE_DIGITS) for series, values in expected.items()}


def test_stores_join_the_job(stored: tuple[RunningJob, list[Store]]) -> None:
    _, stores = stored
    whose = "on (node, gpu, uuid) group_left (slurm_job) piolet_job_gpu_info"
    join = f"sum by (slurm_job) (piolet_gpu_sm_active_ratio * {whose})"
    for store in stores:
        (found,) = store.query(join)
        assert found["metric"] == {"slurm_job": "4711"}
        assert float(found["value"][1]) == pytest.approx(2 * (0.5 + 0.643), rel=2**-8)


def test_the_server_has_one_page_and_says_when_it_cannot_read(job: RunningJob) -> None:
    with exporter.serving(job.open, 0) as address:
        assert httpx2.get(address).status_code == 200
        assert httpx2.get(address.replace("/metrics", "/")).status_code == 404
        job.logbook.job.write_text("torn")
        answer = httpx2.get(address)
        assert answer.status_code == 503
        assert "cannot be read" in answer.text
        with (
            pytest.raises(PioletError, match="cannot listen"),
            exporter.serving(job.open, httpx2.URL(address).port or 0),
        ):
            pass


def test_segments_that_are_merged_while_they_are_read_are_read_anew(job: RunningJob) -> None:
    job.sample()
    job.sample()
    opened: list[Book] = []

    def open_then_merge() -> Book:
        opened.append(job.open())
        assert opened[-1].reader.paths, "the segments are listed before they are merged"
        for node in NODES:
            merge_node(job.logbook, node)
        return opened[-1]

    with exporter.serving(open_then_merge, 0) as address:
        answer = httpx2.get(address)
    assert answer.status_code == 200
    assert answer.text.count("piolet_gpu_power_w{") == len(NODES) * GPUS
    assert len(opened) == 2


def test_a_scraper_that_goes_away_is_no_error(job: RunningJob, capfd: pytest.CaptureFixture[str]) -> None:
    job.sample()
    gone = threading.Event()

    def open_late() -> Book:
        gone.wait(10)
        return job.open()

    with exporter.serving(open_late, 0) as address:
        with socket.create_connection(("127.0.0.1", httpx2.URL(address).port or 0)) as scraper:
            scraper.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            scraper.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            time.sleep(0.2)
        gone.set()
        assert httpx2.get(address).status_code == 200
    assert "Traceback" not in capfd.readouterr().err


def test_export_follows_a_job_to_its_end(job: RunningJob) -> None:
    job.sample()
    seen: list[str] = []

    def scrape_then_end(address: str) -> None:
        seen.extend((httpx2.get(address).text, address))
        write_outcome(job.logbook.outcome, Outcome("COMPLETED", 0))

    exporter.follow(job.open, 0, scrape_then_end, linger_s=0)
    assert "piolet_gpu_power_w" in seen[0]
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(seen[1])
    with pytest.raises(UsageError, match="has ended"):
        exporter.follow(job.open, 0, seen.append)


def test_export_of_an_ended_job_is_one_clear_error(training: Logbook, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["watch", "export", str(training.path)]) == 2
    assert "this job has ended" in capsys.readouterr().err
