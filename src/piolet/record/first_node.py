"""The clock of the job's first node, for the others to compare theirs with: four times and two datagrams, as NTP does.

Its recorder answers on a port of its own, and says in the logbook where and to which word. Whoever does not know the
word gets no answer; an answer is as long as the question, and holds nothing but the time.
"""

from __future__ import annotations

import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piolet.core.errors import ParseError, PioletError
from piolet.core.files import read_json, write_json

Now = Callable[[], int]

_QUESTION = struct.Struct("!16sqqq")
"""The word, then three times in nanoseconds: asked, received, answered; the last two are zero in a question."""

_PROBES = 5
_PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Offset:
    """How far this clock is before the first node's, and by how much that may be wrong, both in seconds."""

    offset_s: float
    uncertainty_s: float


class Server:
    """Answers with the time in a thread of its own, until the process ends."""

    def __init__(self, path: Path, node: str, now: Now = time.time_ns) -> None:
        self._word = secrets.token_bytes(16)
        self._now = now
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._socket.bind(("::", 0))
        names = list(dict.fromkeys((node, socket.gethostname(), socket.getfqdn())))
        where = {"node": node, "hosts": names, "port": self._socket.getsockname()[1], "word": self._word.hex()}
        write_json(path, where)
        threading.Thread(target=self._serve, name="clock of the first node", daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                question, sender = self._socket.recvfrom(_QUESTION.size + 1)
                received_ns = self._now()
                if len(question) != _QUESTION.size:
                    continue
                word, asked_ns, _, _ = _QUESTION.unpack(question)
                if secrets.compare_digest(word, self._word):
                    self._socket.sendto(_QUESTION.pack(word, asked_ns, received_ns, self._now()), sender)
            except OSError:
                if self._socket.fileno() < 0:
                    return


def ask(path: Path, now: Now = time.time_ns) -> tuple[str, Offset] | None:
    """Return the first node and how far its clock is away; None as long as its recorder has not said where it answers.

    Raises:
        PioletError: it has, and does not answer.
    """
    if not path.exists():
        return None
    try:
        where = read_json(path)
        word, port, hosts = bytes.fromhex(where["word"]), int(where["port"]), list(map(str, where["hosts"]))
        node = str(where["node"])
    except (KeyError, TypeError, ValueError) as error:
        raise ParseError("not where a clock answers", source=str(path)) from error
    found = [offset for address in _addresses(hosts, port) for offset in _probes(address, word, now)]
    if not found:
        remedy = "nodes that may not talk to each other over UDP have no common clock but UTC"
        raise PioletError(f"the clock of {node} does not answer", where=f"{hosts[0]}:{port}", remedy=remedy)
    return node, min(found, key=lambda each: each.uncertainty_s)


def _addresses(hosts: Sequence[str], port: int) -> list[tuple[int, Any]]:
    """Return the addresses of the first of `hosts` that has any."""
    for host in hosts:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except OSError:
            continue
        return list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    return []


def _probes(address: tuple[int, Any], word: bytes, now: Now) -> list[Offset]:
    """Ask one address a few times; nothing if it does not answer the first time."""
    found: list[Offset] = []
    with socket.socket(address[0], socket.SOCK_DGRAM) as client:
        client.settimeout(_PATIENCE_S)
        for _ in range(_PROBES):
            try:
                client.sendto(_QUESTION.pack(word, now(), 0, 0), address[1])
                answer, heard_ns = client.recv(_QUESTION.size + 1), now()
            except OSError:
                break
            if len(answer) == _QUESTION.size and answer[:16] == word:
                _, asked_ns, received_ns, answered_ns = _QUESTION.unpack(answer)
                found.append(offset(asked_ns, received_ns, answered_ns, heard_ns))
    return found


def offset(asked_ns: int, received_ns: int, answered_ns: int, heard_ns: int) -> Offset:
    """Return the offset from the four times of an exchange (RFC 5905): half the way is the most it may be wrong."""
    ahead_ns = ((asked_ns - received_ns) + (heard_ns - answered_ns)) / 2
    way_ns = (heard_ns - asked_ns) - (answered_ns - received_ns)
    return Offset(ahead_ns / 1e9, max(0, way_ns) / 2e9)
