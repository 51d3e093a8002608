"""A ring all-reduce over TCP: what NCCL does between nodes, small enough to read.

The processes meet at MASTER_ADDR:MASTER_PORT and tell one another where they listen; each then talks to its right
neighbour only. Summing n bytes over p ranks sends 2*(p-1)/p*n bytes per rank (Patarasuk and Yuan, 2009).
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

MEET_TIMEOUT_S = 60.0
EXCHANGE_TIMEOUT_S = 120.0


class Ring:
    """The ranks of a job, joined in a ring. `reduced_bytes` counts what this rank has sent."""

    def __init__(self, rank: int, size: int, host: str, port: int) -> None:
        self.rank = rank
        self.size = size
        self.reduced_bytes = 0
        if size > 1:
            self._left, self._right = _join(rank, size, host, port)

    @classmethod
    def from_environment(cls) -> Ring:
        """Join the ring that the launcher's variables describe; alone when there are none."""
        env = os.environ
        rank = int(env.get("RANK", env.get("SLURM_PROCID", "0")))
        size = int(env.get("WORLD_SIZE", env.get("SLURM_NTASKS", "1")))
        return cls(rank, size, env.get("MASTER_ADDR", "127.0.0.1"), int(env.get("MASTER_PORT", "29500")))

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Return the mean over all ranks of a 1-D float32 array."""
        if self.size == 1:
            return values
        chunks = np.array_split(values.copy(), self.size)
        for send, receive in _schedule(self.rank, self.size):  # reduce-scatter
            chunks[receive] += self._exchange(chunks[send], chunks[receive])
        for send, receive in _schedule(self.rank + 1, self.size):  # all-gather
            chunks[receive][:] = self._exchange(chunks[send], chunks[receive])
        return np.concatenate(chunks) / self.size

    def _exchange(self, outgoing: np.ndarray, like: np.ndarray) -> np.ndarray:
        sender = threading.Thread(target=self._right.sendall, args=(outgoing.tobytes(),))
        sender.start()
        incoming = np.frombuffer(_receive(self._left, like.nbytes), dtype=like.dtype)
        sender.join()
        self.reduced_bytes += outgoing.nbytes
        return incoming


def _schedule(start: int, size: int) -> Iterator[tuple[int, int]]:
    for turn in range(size - 1):
        yield (start - turn) % size, (start - turn - 1) % size


def _join(rank: int, size: int, host: str, port: int) -> tuple[socket.socket, socket.socket]:
    meeting = _meet(host, port) if rank else _listen(host, port)
    own_host = meeting.getsockname()[0]
    listener = _listen(own_host, 0)
    own_place = [own_host, listener.getsockname()[1]]
    places = _gather(meeting, own_place, size) if rank == 0 else _report(meeting, rank, own_place)
    right = socket.create_connection(tuple(places[(rank + 1) % size]), timeout=MEET_TIMEOUT_S)
    left, _ = listener.accept()
    for link in (left, right):
        link.settimeout(EXCHANGE_TIMEOUT_S)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return left, right


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.create_server((host, port), backlog=1024)
    listener.settimeout(MEET_TIMEOUT_S)
    return listener


def _meet(host: str, port: int) -> socket.socket:
    deadline = time.monotonic() + MEET_TIMEOUT_S
    while True:
        try:
            return socket.create_connection((host, port), timeout=MEET_TIMEOUT_S)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _gather(listener: socket.socket, own_place: list, size: int) -> list:
    places = {0: own_place}
    guests = []
    while len(places) < size:
        guest, _ = listener.accept()
        rank, place = _read_message(guest)
        places[rank] = place
        guests.append(guest)
    ordered = [places[rank] for rank in range(size)]
    for guest in guests:
        _write_message(guest, ordered)
    return ordered


def _report(meeting: socket.socket, rank: int, place: list) -> list:
    _write_message(meeting, [rank, place])
    return _read_message(meeting)


def _write_message(link: socket.socket, value: object) -> None:
    text = json.dumps(value).encode()
    link.sendall(struct.pack("!I", len(text)) + text)


def _read_message(link: socket.socket) -> list:
    (length,) = struct.unpack("!I", _receive(link, 4))
    return json.loads(_receive(link, length))


def _receive(link: socket.socket, count: int) -> bytes:
    buffer = bytearray(count)
    view = memoryview(buffer)
    while view:
        received = link.recv_into(view)
        if not received:
            raise ConnectionError("a neighbour in the ring has gone")
        view = view[received:]
    return bytes(buffer)
