"""Pushing all samples of a running job to a store: every sample once, also those that a node flushes late."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import httpx2

from piolet import __version__
from piolet.core.errors import PioletError, UsageError, storage_errors
from piolet.core.log import logger
from piolet.logbook.openmetrics import Block, Sample
from piolet.logbook.reader import rereading
from piolet.watch import wire
from piolet.watch.book import Book
from piolet.watch.export import blocks

LATE_NS = 120 * 1_000_000_000
"""How much later than others a node may flush and still lose nothing."""

TIMEOUT_S = 30.0
_TOO_MANY, _SERVER = 429, 500

Opener = Callable[[], Book]


class Protocol(StrEnum):
    """How samples are pushed."""

    REMOTE_WRITE = "remote-write"
    OTLP = "otlp"


@dataclass(slots=True)
class Pusher:
    """Pushes what is new to `url`; `pushed` has the time of the last sample of each series that the store took."""

    url: str
    protocol: Protocol
    client: httpx2.Client
    pushed: dict[tuple[str, tuple[object, ...]], int] = field(default_factory=dict)

    @rereading
    def push(self, opener: Opener) -> int:
        """Push what is new of the job that `opener` opens; return how many samples were taken.

        A store that is not there, or busy, gets them the next time.

        Raises:
            UsageError: the store refuses the address, the credentials or the form of the request.
        """
        now_ns = time.time_ns()
        since_ns = max(0, max(self.pushed.values(), default=0) - LATE_NS)
        with opener() as book:
            new = [
                (metric, each)
                for metric, samples in blocks(book, since_ns)
                if (each := self._new(metric.name, samples))
            ]
        if not any(sample.time_ns is not None for _, samples in new for sample in samples):
            return 0
        if not self._sent(new, now_ns):
            return 0
        for metric, samples in new:
            for sample in samples:
                if sample.time_ns is not None:
                    self.pushed[metric.name, tuple(sample.labels.values())] = sample.time_ns
        return sum(len(samples) for _, samples in new)

    def _new(self, name: str, samples: list[Sample]) -> list[Sample]:
        return [
            sample
            for sample in samples
            if sample.time_ns is None or sample.time_ns > self.pushed.get((name, tuple(sample.labels.values())), 0)
        ]

    def _sent(self, new: list[Block], now_ns: int) -> bool:
        if self.protocol is Protocol.OTLP:
            body, headers = wire.otlp(new, now_ns, __version__), wire.OTLP_HEADERS
        else:
            body, headers = wire.remote_write(new, now_ns), wire.REMOTE_WRITE_HEADERS
        try:
            answer = self.client.post(self.url, content=body, headers=headers)
        except httpx2.TransportError as error:
            logger("watch").warning("not pushed, will be tried again", url=self.url, reason=str(error))
            return False
        if answer.status_code >= _SERVER or answer.status_code == _TOO_MANY:
            logger("watch").warning("not pushed, will be tried again", url=self.url, status=answer.status_code)
            return False
        if not answer.is_success:
            raise UsageError(
                f"the store refused the samples: {answer.status_code} {answer.text.strip()[:300]}",
                where=self.url,
                remedy="check the address, the protocol, and the file of headers",
            )
        return True


def follow(opener: Opener, pusher: Pusher, every_s: float) -> None:
    """Push every `every_s` seconds until the job has ended and its last samples were taken."""
    ended = False
    while not ended:
        ended = _ended(opener)
        pusher.push(opener)
        if not ended:
            time.sleep(every_s)


def headers(path: Path | None) -> Mapping[str, str]:
    """Return the headers that a file has, one a line as ``Name: value``: secrets do not belong on a command line.

    Raises:
        UsageError: a line is no header.
    """
    return dict(_headers(path)) if path else {}


def _headers(path: Path) -> Iterator[tuple[str, str]]:
    with storage_errors(path, "read the headers"):
        lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        name, colon, value = line.partition(":")
        if line.strip() and not (colon and name.strip()):
            raise UsageError("not a header", where=f"{path}:{number}", remedy="write `Name: value`")
        if line.strip():
            yield name.strip(), value.strip()


def client(path: Path | None = None) -> httpx2.Client:
    """Return a client that sends the headers of a file with each request."""
    try:
        return httpx2.Client(headers=dict(headers(path)), timeout=TIMEOUT_S)
    except (ValueError, UnicodeError) as error:
        raise PioletError(f"these headers cannot be sent: {error}", where=str(path)) from error


def _ended(opener: Opener) -> bool:
    with opener() as book:
        return book.outcome() is not None
