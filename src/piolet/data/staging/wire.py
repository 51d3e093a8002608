"""Pieces from node to node over TCP. Both sides prove that they know the job's secret before anything else is said.

A client sends nonce, request and proof; the server proves itself in turn and sends pieces: length, seal, content. A
length of 0 says that the server lives and waits itself, so that silence means a dead node. Nothing is encrypted.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

from piolet.data.staging.store import SEAL_BYTES, Piece, Store
from piolet.data.staging.tree import PIECE_BYTES

SILENT_S = 6.0
"""A server that says nothing for so long, not even that it waits, is dead."""

_BEAT_S = 1.0
_SIOCGIFADDR = 0x8915  # netdevice(7)
_NONCE_BYTES = 32
_PROOF_BYTES = 32
_HEADER = struct.Struct(f"!I{SEAL_BYTES}s")
_BEAT = _HEADER.pack(0, bytes(SEAL_BYTES))
_REQUEST = struct.Struct("!q")
_NOISE = -1
"""Asks for noise instead of pieces, for as long as the client reads it: it measures the network."""

Address = tuple[str, int]


class Forbidden(ConnectionError):  # noqa: N818 - the answer to the other side
    """The other side does not know the secret."""


def listener(host: str) -> socket.socket:
    """Return a socket that listens on a free port of this one address."""
    return socket.create_server((host, 0), backlog=128)


def address_toward(host: str) -> str:
    """Return this machine's address on the way to `host`; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))
        return str(probe.getsockname()[0])


def address_of(interface: str) -> str:
    """Return the IPv4 address of a network interface; OSError if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        asked = struct.pack("256s", interface.encode()[:15])
        return socket.inet_ntoa(fcntl.ioctl(probe, _SIOCGIFADDR, asked)[20:24])


def serve(listening: socket.socket, secret: bytes, store: Store) -> None:
    """Answer everybody who knows the secret, each in a thread, until `listening` is closed."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection, secret, store), daemon=True).start()


def _answer(connection: socket.socket, secret: bytes, store: Store) -> None:
    with closing(connection), suppress(OSError):  # the client notices, and asks another node
        connection.settimeout(SILENT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own = os.urandom(_NONCE_BYTES)
        connection.sendall(own)
        theirs, request = _received(connection, _NONCE_BYTES), _received(connection, _REQUEST.size)
        _check(connection, _proof(secret, b"client", own, theirs, request))
        connection.sendall(_proof(secret, b"server", own, theirs, request))
        [first] = _REQUEST.unpack(request)
        if first == _NOISE:
            _send_noise(connection)
        else:
            _send_pieces(connection, store, first)


def _send_noise(connection: socket.socket) -> None:
    piece = _HEADER.pack(PIECE_BYTES, bytes(SEAL_BYTES)) + os.urandom(PIECE_BYTES)
    while True:
        connection.sendall(piece)


def _send_pieces(connection: socket.socket, store: Store, first: int) -> None:
    if first < 0:
        raise ConnectionError(f"there is no piece {first}")
    index = first
    while index < store.tree.pieces:
        piece = store.get(index, _BEAT_S)
        if piece is None:
            connection.sendall(_BEAT)
        else:
            connection.sendall(_HEADER.pack(len(piece.content), piece.seal))
            connection.sendall(piece.content)
            index += 1


def noise(address: Address, secret: bytes) -> Iterator[Piece]:
    """Yield noise from a node for ever."""
    return pieces(address, secret, _NOISE)


def pieces(address: Address, secret: bytes, first: int, silent_s: float = SILENT_S) -> Iterator[Piece]:
    """Yield the pieces of a node from number `first` on.

    Raises:
        OSError: it is dead, silent, or has nothing more to give.
    """
    with socket.create_connection(address, timeout=silent_s) as connection:
        own, theirs, request = os.urandom(_NONCE_BYTES), _received(connection, _NONCE_BYTES), _REQUEST.pack(first)
        connection.sendall(own + request + _proof(secret, b"client", theirs, own, request))
        _check(connection, _proof(secret, b"server", theirs, own, request))
        while True:
            length, seal = _HEADER.unpack(_received(connection, _HEADER.size))
            if length > PIECE_BYTES:
                raise ConnectionError(f"a piece of {length} bytes")
            if length:
                yield Piece(seal, _received(connection, length))


def _proof(secret: bytes, side: bytes, *said: bytes | bytearray) -> bytes:
    return hmac.digest(secret, side + b"".join(said), "sha256")


def _check(connection: socket.socket, expected: bytes) -> None:
    if not hmac.compare_digest(_received(connection, _PROOF_BYTES), expected):
        raise Forbidden("the other side does not know this job's secret")


def _received(connection: socket.socket, count: int) -> bytearray:
    """Return exactly `count` bytes."""
    content = bytearray(count)
    left = memoryview(content)
    while left:
        read = connection.recv_into(left)
        if not read:
            raise ConnectionError("it ended the connection")
        left = left[read:]
    return content
