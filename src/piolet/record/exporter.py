"""/metrics of the recorder: the newest sample of everything that it reads on its node, for Prometheus to fetch.

It is off unless the site or the user gives it an address. The server is a thread and a socket: what the standard
library has for HTTP would cost the recorder more memory than all that it tells.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from piolet.core.errors import PioletError
from piolet.logbook import openmetrics
from piolet.logbook.openmetrics import Block, Sample
from piolet.logbook.schema import FAMILIES, Column
from piolet.logbook.units import unit
from piolet.logbook.writer import rounded
from piolet.record.collector import Entry

MOST_SERIES = 5_000
"""Devices and names of a node; what a program invents beyond that is not told."""

PATIENCE_S = 5.0
_LONGEST_REQUEST = 8192
_Key = tuple[str, tuple[object, ...]]


class Latest:
    """The newest row of every device of a node. Safe to use from several threads."""

    def __init__(self, node: str) -> None:
        self.node = node
        self._rows: dict[_Key, Mapping[str, Any]] = {}
        self._lock = threading.Lock()

    def take(self, entries: Iterable[Entry]) -> None:
        """Remember rows, each in the place of the one before it."""
        with self._lock:
            for family, row in entries:
                if family not in {*openmetrics.EXPORTED, "user"}:
                    continue
                key = family, tuple(row.get(name) for name in FAMILIES[family].key[1:])
                if family == "user":
                    key = family, (row.get("rank"), row.get("name"))
                if key in self._rows or len(self._rows) < MOST_SERIES:
                    self._rows[key] = row

    def blocks(self, now_ns: int) -> Iterator[Block]:
        """Yield every metric that has a sample not older than LATEST_S."""
        oldest_ns = now_ns - round(openmetrics.LATEST_S * 1e9)
        with self._lock:
            rows = [(family, row) for (family, _), row in self._rows.items() if row["time_ns"] >= oldest_ns]
        known = openmetrics.exported()
        for name in openmetrics.EXPORTED:
            own = [row for family, row in rows if family == name]
            for column in FAMILIES[name].columns if own else ():
                metric = known.get(openmetrics.metric_name(name, column.name))
                samples = [each for row in own if (each := self._sample(name, column, row))]
                if metric and samples:
                    yield metric, samples
        told = [
            Sample({"node": self.node, "rank": row.get("rank"), "name": row["name"]}, row["value"], row["time_ns"])
            for family, row in rows
            if family == "user" and math.isfinite(row["value"])
        ]
        if told:
            yield known[openmetrics.USER], told

    def _sample(self, family: str, column: Column, row: Mapping[str, Any]) -> Sample | None:
        """Return the value of a column as the logbook has it; None for a blank."""
        value = rounded(column, row.get(column.name))
        if value is None or (unit(column.name) == "1" and not 0 <= value <= 1):
            return None
        labels = {name: row.get(name) for name in openmetrics.labels_of(FAMILIES[family])}
        return Sample(labels | {"node": self.node}, value, row["time_ns"])


class Exporter:
    """Serves /metrics at `address` (HOST:PORT) until it is closed; `holders` gives who holds the node at the moment.

    Raises:
        PioletError: the address is taken or not this machine's.
    """

    def __init__(self, address: str, latest: Latest, holders: Callable[[], Iterable[Holder]]) -> None:
        self._latest = latest
        self._holders = holders
        self._socket = _listening(address)
        threading.Thread(target=self._serve, name="metrics", daemon=True).start()

    @property
    def address(self) -> str:
        """Where it listens."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}/metrics"

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def _serve(self) -> None:
        """Answer one after the other, each within PATIENCE_S; the next waits in the kernel's queue."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(PATIENCE_S)
                connection.sendall(self._answer(_request(connection)))

    def _answer(self, request: str) -> bytes:
        method, _, rest = request.partition(" ")
        status, text = "404 Not Found", "the samples are at /metrics\n"
        if method == "GET" and rest.partition(" ")[0].partition("?")[0] == "/metrics":
            blocks = (*self._latest.blocks(time.time_ns()), *info_blocks(self._latest.node, self._holders()))
            status, text = "200 OK", openmetrics.shown(blocks)
        body = text.encode("utf-8", "replace")
        kind = openmetrics.CONTENT_TYPE if status.startswith("200") else "text/plain; charset=utf-8"
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + body


@dataclass(frozen=True, slots=True)
class Holder:
    """A job on a node: the labels of openmetrics.JOB as far as they are known, and its GPUs by index and UUID."""

    job: Mapping[str, str]
    gpus: Sequence[tuple[int, str]] = ()


def info_blocks(node: str, holders: Iterable[Holder]) -> Iterator[Block]:
    """Yield the info series: whose the node and its GPUs are."""
    known = openmetrics.exported()
    jobs: list[Sample] = []
    gpus: list[Sample] = []
    for each in holders:
        about = {name: each.job.get(name, "") for name in openmetrics.JOB}
        jobs.append(Sample({"node": node} | about, 1, None))
        gpus += [Sample({"node": node, "gpu": index, "uuid": uuid} | about, 1, None) for index, uuid in each.gpus]
    for name, samples in ((openmetrics.INFO, jobs), (openmetrics.GPU_INFO, gpus)):
        if samples:
            yield known[name], samples


def _listening(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    try:
        return socket.create_server((host.strip("[]"), int(port)), family=_family(host))
    except OSError as error:
        raise PioletError(
            f"cannot listen: {error.strerror}", where=address, remedy="choose another address for record.metrics"
        ) from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _request(connection: socket.socket) -> str:
    """Return the first line of a request; the rest of its head is read and left alone."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _LONGEST_REQUEST:
        chunk = connection.recv(4096)
        if not chunk:
            break
        head += chunk
    return head.partition(b"\r\n")[0].decode("latin-1")
