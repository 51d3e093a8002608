"""Debian's Prometheus and VictoriaMetrics, each on a free port of its own, scraping one target every second."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs: [{{job_name: piolet, static_configs: [{{targets: ['{target}']}}]}}]
"""

Samples = dict[tuple[str, str], dict[int, float]]
"""(node, gpu) -> time in ms -> value."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Store:
    """A running server; both speak Prometheus' query API."""

    name: str
    url: str

    @property
    def write(self) -> str:
        """Where it takes remote-write."""
        return f"{self.url}/api/v1/write"

    def query(self, query: str) -> list[dict]:
        answer = httpx2.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]["result"]

    def raw(self, metric: str) -> Samples:
        """Every sample as it is stored, of the series of a GPU metric.

        VictoriaMetrics adds a null when a series is no longer scraped; that is no sample.
        """
        if self.name == "prometheus":
            return {
                _key(each): {round(t * 1000): float(v) for t, v in each["values"]}
                for each in self.query(f"{metric}[1h]")
            }
        told = httpx2.get(f"{self.url}/api/v1/export", params={"match[]": metric}, timeout=30).text
        found = [json.loads(line) for line in told.splitlines()]
        return {
            _key(each): {t: v for t, v in zip(each["timestamps"], each["values"], strict=True) if v is not None}
            for each in found
        }


def _key(series: dict) -> tuple[str, str]:
    return series["metric"]["node"], series["metric"]["gpu"]


def argv(name: str, port: int, config: Path, data: Path) -> list[str]:
    if name == "prometheus":
        return [
            name,
            f"--config.file={config}",
            f"--storage.tsdb.path={data}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-remote-write-receiver",
        ]
    return [
        name,
        f"-promscrape.config={config}",
        f"-storageDataPath={data}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-search.latencyOffset=0s",
        "-memory.allowedBytes=128MB",
    ]


@contextmanager
def running(name: str, target: str, directory: Path, *options: str) -> Iterator[Store]:
    """Start a server that scrapes `target` (HOST:PORT), with further options, and end it."""
    directory.mkdir(exist_ok=True)
    config = directory / "scrape.yml"
    config.write_text(CONFIG.format(target=target))
    port = free_port()
    with (directory / "log").open("w") as log:
        command = [*argv(name, port, config, directory / "data"), *options]
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        store = Store(name, f"http://127.0.0.1:{port}")
        while not _ready(store):
            assert server.poll() is None, (directory / "log").read_text()[-2000:]
            time.sleep(0.1)
        yield store
    finally:
        server.terminate()
        server.wait(30)


def _ready(store: Store) -> bool:
    try:
        return (
            httpx2.get(f"{store.url}/{'-/ready' if store.name == 'prometheus' else 'health'}", timeout=5).status_code
            == 200
        )
    except httpx2.TransportError:
        return False
