"""Pushing a running job: remote-write into real stores, OTLP read back by its own protocol definition."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import metric_stores
import pytest
from google.protobuf import json_format
from metric_stores import Store, free_port
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from running_jobs import GPUS, NODES, RunningJob, made

from piolet.cli.main import run_command
from piolet.core.errors import UsageError
from piolet.logbook.records import Outcome, write_outcome
from piolet.watch import push
from piolet.watch.push import Protocol, Pusher

NOBODY = "127.0.0.1:1"


@pytest.fixture
def job(tmp_path: Path) -> RunningJob:
    return made(tmp_path)


@pytest.fixture(scope="module", params=["prometheus", "victoria-metrics"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store that scrapes nothing; what it has was pushed."""
    directory = tmp_path_factory.mktemp("pushed")
    with metric_stores.running(request.param, NOBODY, directory / "store") as store:
        yield store


@contextmanager
def receiver(*statuses: int) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers with one status after the other, the last for ever; yields its address and the bodies."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(statuses[min(len(bodies), len(statuses)) - 1])
            self.send_header("x-authorization", self.headers.get("authorization", ""))
            self.end_headers()
            self.wfile.write(b"not you" if self.headers.get("authorization") != "Bearer t" else b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by http.server
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/metrics", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_every_sample_is_in_the_store_once(job: RunningJob, store: Store) -> None:
    with push.client() as client:
        pusher = Pusher(store.write, Protocol.REMOTE_WRITE, client)
        for _ in range(3):
            job.sample()
            time.sleep(0.002)  # a store knows milliseconds
            job.sample()
            assert pusher.push(job.open) > 0
        assert pusher.push(job.open) == 0, "nothing is new"
    expected = job.raw("power_w")
    assert sum(map(len, expected.values())) == 6 * len(NODES) * GPUS
    while store.raw("piolet_gpu_power_w") != expected:
        time.sleep(0.2)  # the store shows what it took when it is ready; the test has a time-out
    info = store.query("piolet_job_info")
    assert {each["metric"]["node"] for each in info} >= set(NODES)
    assert {each["metric"]["slurm_job"] for each in info} == {"4711"}


def test_otlp_is_what_its_definition_says(job: RunningJob) -> None:
    job.sample()
    with receiver(200) as (url, bodies), push.client() as client:
        assert Pusher(url, Protocol.OTLP, client).push(job.open) > 0
    request = json_format.Parse(bodies[0], ExportMetricsServiceRequest())
    metrics = {each.name: each for each in request.resource_metrics[0].scope_metrics[0].metrics}
    points = metrics["piolet_gpu_power_w"].gauge.data_points
    sent = {
        (labels["node"], labels["gpu"]): {point.time_unix_nano // 10**6: point.as_double}
        for point in points
        for labels in [{each.key: each.value.string_value for each in point.attributes}]
    }
    assert sent == job.raw("power_w")
    assert metrics["piolet_gpu_energy_j"].sum.is_monotonic


def test_what_a_store_does_not_take_now_is_pushed_again(job: RunningJob) -> None:
    job.sample()
    with receiver(503, 429, 200) as (url, bodies), push.client() as client:
        pusher = Pusher(url, Protocol.OTLP, client)
        assert [pusher.push(job.open) > 0 for _ in range(3)] == [False, False, True]
    assert len({len(json.loads(body)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]) for body in bodies}) == 1
    with push.client() as client:
        assert Pusher(f"http://127.0.0.1:{free_port()}/", Protocol.REMOTE_WRITE, client).push(job.open) == 0


def test_a_store_that_refuses_ends_it(job: RunningJob) -> None:
    job.sample()
    with receiver(401) as (url, _), push.client() as client, pytest.raises(UsageError, match="401 not you"):
        Pusher(url, Protocol.OTLP, client).push(job.open)


def test_the_command_pushes_to_the_end_of_the_job(job: RunningJob, tmp_path: Path) -> None:
    job.sample()
    write_outcome(job.logbook.outcome, Outcome("COMPLETED", 0))
    secret = tmp_path / "headers"
    secret.write_text("Authorization: Bearer t\n")
    with receiver(200) as (url, bodies):
        argv = ["watch", "export", str(job.logbook.path), "--push", url, "--as", "otlp", "--headers", str(secret)]
        assert run_command(argv) == 0
        assert len(bodies) == 1
        secret.write_text("no header\n")
        assert run_command(argv) == 2
