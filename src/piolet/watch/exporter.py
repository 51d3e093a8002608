"""The server of `piolet watch export`: /metrics of one running job, on this machine only, as long as the job runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import duckdb

from piolet.core.errors import PioletError, UsageError
from piolet.core.log import logger
from piolet.logbook.openmetrics import CONTENT_TYPE
from piolet.logbook.reader import rereading
from piolet.watch.book import Book
from piolet.watch.export import exposition

LOOK_S = 20.0
LINGER_S = 60.0
"""How long the samples of a job's end can still be fetched: Prometheus comes once a minute unless told otherwise."""

Opener = Callable[[], Book]


def follow(opener: Opener, port: int, announce: Callable[[str], None], *, linger_s: float = LINGER_S) -> None:
    """Serve /metrics of the job that `opener` opens until `linger_s` after its end.

    `announce` gets the address. Port 0 takes a free one.

    Raises:
        UsageError: the job has ended already.
        PioletError: the port is taken.
    """
    if _ended(opener):
        raise UsageError("this job has ended", remedy="export follows running jobs; see piolet watch quality, or sql")
    with serving(opener, port) as address:
        announce(address)
        while not _ended(opener):
            time.sleep(LOOK_S)
        time.sleep(linger_s)


@contextmanager
def serving(opener: Opener, port: int) -> Iterator[str]:
    """Serve /metrics on the loopback interface while the block runs, and yield the address."""
    try:
        server = _Server(opener, port)
    except OSError as error:
        raise PioletError(
            f"cannot listen: {error.strerror}", where=f"127.0.0.1:{port}", remedy="choose another --port, or 0"
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def __init__(self, opener: Opener, port: int) -> None:
        self.opener = opener
        self.reading = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def metrics(self) -> str:
        """Read the logbook as it is now; one reader at a time, which bounds memory."""
        with self.reading:
            return self._read()

    @rereading
    def _read(self) -> str:
        with self.opener() as book:
            return exposition(book, time.time_ns())


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self._answer(HTTPStatus.NOT_FOUND, "the samples are at /metrics\n")
            return
        try:
            self._answer(HTTPStatus.OK, self.server.metrics())
        except (PioletError, duckdb.Error) as error:
            logger("watch").warning("not exported", reason=str(error))
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by http.server
        """Say nothing: a line every few seconds tells nobody anything."""

    def _answer(self, status: HTTPStatus, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        with suppress(ConnectionError):  # whoever asked has gone: a scrape that took too long
            self.end_headers()
            self.wfile.write(body)


def _ended(opener: Opener) -> bool:
    with opener() as book:
        return book.outcome() is not None
