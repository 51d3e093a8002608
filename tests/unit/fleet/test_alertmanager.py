"""A real Alertmanager (Debian's prometheus-alertmanager) sends its web hook to the service."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fleet_service
import httpx2
from fleet_service import until

from piolet.core.sockets import free_port
from piolet.fleet import center
from piolet.fleet.evidence import Evidence, Kind, Source

CONFIG = """
route: {{receiver: piolet, group_wait: 0s, group_interval: 1s, repeat_interval: 1s}}
receivers:
  - name: piolet
    webhook_configs:
      - url: {address}/v1/alerts
        http_config: {{authorization: {{credentials_file: {token}}}}}
"""
HOT = {"labels": {"alertname": "InletTemperatureHigh", "instance": "n3.site:9100"}, "annotations": {"summary": "41 C"}}
DISK = {"labels": {"alertname": "DiskFull", "instance": "archive.site:9100"}}


@contextmanager
def alertmanager(directory: Path, address: str, token: str) -> Iterator[str]:
    (directory / "token").write_text(token)
    config = directory / "alertmanager.yml"
    config.write_text(CONFIG.format(address=address, token=directory / "token"))
    own = f"127.0.0.1:{free_port()}"
    flags = (f"--config.file={config}", f"--storage.path={directory}", f"--web.listen-address={own}")
    with subprocess.Popen(
        ["prometheus-alertmanager", *flags, "--cluster.listen-address=", "--log.level=warn"]
    ) as process:
        try:
            until(lambda: answers(f"http://{own}/-/ready"))
            yield f"http://{own}"
        finally:
            process.terminate()


def answers(url: str) -> bool:
    with suppress(httpx2.HTTPError):
        return httpx2.get(url).status_code == 200
    return False


def sent(address: str) -> int:
    """How many requests of its web hook were answered well."""
    metrics = dict(line.rsplit(" ", 1) for line in httpx2.get(f"{address}/metrics").text.splitlines() if line[0] != "#")
    total = float(metrics['alertmanager_notifications_total{integration="webhook"}'])
    return round(total - float(metrics['alertmanager_notifications_failed_total{integration="webhook"}']))


def test_what_alertmanager_sends_again_and_again_is_evidence_once(tmp_path) -> None:
    path = tmp_path / "fleet.db"
    with fleet_service.listening(path) as (address, tokens), alertmanager(tmp_path, address, tokens["reporter"]) as own:
        httpx2.post(f"{own}/api/v2/alerts", json=[HOT, DISK]).raise_for_status()
        until(lambda: sent(own) >= 2)
    (alert,) = [entry.content for entry in center.entries(path) if isinstance(entry.content, Evidence)]
    assert (alert.kind, alert.code, alert.node, alert.message) == (Kind.ALERT, "InletTemperatureHigh", "n3", "41 C")
    assert alert.source is Source.ALERT
