"""/metrics of the recorder: what a real Prometheus fetches there is what the logbook has."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import metric_stores
import pytest

from piolet.core.errors import PioletError
from piolet.logbook.layout import Logbook
from piolet.logbook.openmetrics import LATEST_S
from piolet.logbook.schema import FAMILIES
from piolet.logbook.writer import rounded
from piolet.record import exporter
from piolet.record.exporter import Exporter, Holder, Latest

Rows = Callable[[Logbook, str], list[tuple[Any, ...]]]


def test_a_real_prometheus_gets_what_the_logbook_has(
    node: Any, logbook: Logbook, rows: Rows, wait_until: Callable[..., Any], tmp_path: Path
) -> None:
    target = f"127.0.0.1:{metric_stores.free_port()}"
    agent = node.start(
        *node.spec(logbook, exporter=target).argv(), env={"SLURM_JOB_ACCOUNT": "climate", "SLURM_JOB_NAME": "train"}
    )
    with metric_stores.running("prometheus", target, tmp_path / "prometheus") as store:
        wait_until(lambda: len(store.raw("piolet_gpu_power_w").get(("n1", "1"), {})) >= 2)
        scraped = store.raw("piolet_gpu_power_w")
        joined = store.query("piolet_gpu_power_w * on (node, gpu, uuid) group_left (slurm_job) piolet_job_gpu_info")
        (info,) = store.query("piolet_job_info")
    agent.terminate()
    agent.communicate(timeout=60)
    recorded: metric_stores.Samples = {}
    for name, gpu, time_ms, power_w in rows(logbook, "SELECT node, gpu, time_ns // 1000000, power_w FROM gpu"):
        recorded.setdefault((name, str(gpu)), {})[time_ms] = power_w
    assert scraped.keys() == recorded.keys() == {("n1", "0"), ("n1", "1")}
    assert all(recorded[gpu][at] == value for gpu, samples in scraped.items() for at, value in samples.items())
    about = {name: info["metric"][name] for name in ("slurm_job", "cluster", "account", "name")}
    assert about == {
        "slurm_job": logbook.path.name, "cluster": logbook.path.parent.name, "account": "climate", "name": "train",
    }  # fmt: skip
    assert {(each["metric"]["uuid"], each["metric"]["slurm_job"]) for each in joined} == {
        (gpu.uuid, logbook.path.name) for gpu in node.gpus
    }


def test_an_address_that_is_taken_stops_no_recording(
    node: Any, logbook: Logbook, rows: Rows, wait_until: Callable[..., Any]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        node.start(*node.spec(logbook, exporter=f"127.0.0.1:{taken.getsockname()[1]}").argv())
        wait_until(lambda: rows(logbook, "SELECT 1 FROM gpu LIMIT 1"))
        ((said,),) = rows(logbook, "SELECT message FROM events WHERE code = 'metrics'")
    assert "cannot listen: Address already in use" in said


@pytest.fixture
def latest() -> Latest:
    return Latest("n1")


@pytest.fixture
def served(latest: Latest) -> Iterator[Exporter]:
    job = {"slurm_job": "7", "user": 'a"da'}
    running = Exporter("127.0.0.1:0", latest, lambda: [Holder(job, [(0, "GPU-0")]), Holder({"slurm_job": "8"})])
    yield running
    running.close()


def test_blanks_old_samples_and_too_many_series_are_not_told(
    latest: Latest, served: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = time.time_ns()
    gpu = {"time_ns": now_ns, "gpu": 0, "uuid": "GPU-0", "power_w": 301.4, "sm_active_ratio": 7.0, "energy_j": None}
    old = {"time_ns": now_ns - round((LATEST_S + 60) * 1e9), "cpu_busy_ratio": 0.5}
    told = {"time_ns": now_ns, "rank": 0, "step": 3}
    monkeypatch.setattr(exporter, "MOST_SERIES", 4)
    latest.take([("gpu", gpu), ("host", old), ("events", {"time_ns": now_ns})])
    latest.take([("user", told | {"name": name, "value": value}) for name, value in (("loss", 2.5), ("nan", math.nan))])
    latest.take(
        [("user", told | {"name": "one too many", "value": 1.0}), ("user", told | {"name": "loss", "value": 2.4})]
    )
    (column,) = (each for each in FAMILIES["gpu"].columns if each.name == "power_w")
    power_w = rounded(column, gpu["power_w"])
    ada = 'cluster="",user="a\\"da",account="",name=""'
    lines = httpx2.get(served.address).text.splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        f'piolet_gpu_power_w{{node="n1",gpu="0",uuid="GPU-0"}} {power_w!r} {now_ns // 10**6}',
        f'piolet_user_value{{node="n1",rank="0",name="loss"}} 2.4 {now_ns // 10**6}',
        f'piolet_job_info{{node="n1",slurm_job="7",{ada}}} 1',
        'piolet_job_info{node="n1",slurm_job="8",cluster="",user="",account="",name=""} 1',
        f'piolet_job_gpu_info{{node="n1",gpu="0",uuid="GPU-0",slurm_job="7",{ada}}} 1',
    ]


def test_whoever_asks_wrongly_or_slowly_holds_up_nobody(served: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "PATIENCE_S", 0.2)
    address = served.address.removeprefix("http://").removesuffix("/metrics").split(":")
    with socket.create_connection((address[0], int(address[1]))) as silent:
        assert httpx2.get(served.address.replace("/metrics", "/other")).status_code == 404
        assert httpx2.post(served.address).status_code == 404
        assert httpx2.get(f"{served.address}?name[]=x").status_code == 200
        silent.sendall(os.urandom(100))


def test_an_address_of_another_machine_is_one_clear_error(latest: Latest) -> None:
    with pytest.raises(PioletError, match="cannot listen"):
        Exporter("192.0.2.1:0", latest, list)
