"""One agent per node and job: who binds the abstract socket is elected; later ones hand over what they would follow.

An abstract socket needs no file and ends with its last process, so nothing is left behind by a kill.
"""

from __future__ import annotations

import os
import socket
import struct

from piolet.core.errors import PioletError

_ATTEMPTS = 20
_TIMEOUT_S = 1.0
_TAKEN = b"taken"
_CREDENTIALS = struct.Struct("3i")


def elect(address: str, follow: int | None = None) -> socket.socket | None:
    """Bind `address` and return the socket, or return None if an agent of this user has it.

    `follow` is a pidfd that the elected agent then follows too.

    Raises:
        PioletError: another user holds the name.
    """
    for _ in range(_ATTEMPTS):
        elected = bind(address)
        if elected or _handed_over(address, follow):
            return elected
    raise PioletError(
        "the recorder's name on this node is taken, and its holder does not answer",
        where=address.replace("\0", "@"),
        remedy="look for it with `ss -xlp`; record without it until it is gone",
    )


def bind(address: str) -> socket.socket | None:
    """Bind `address` and return the socket, or None if somebody has it."""
    elected = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        elected.bind(address)
        elected.listen()
        elected.setblocking(False)  # noqa: FBT003 - the socket's own interface
    except OSError:
        elected.close()
        return None
    return elected


def _handed_over(address: str, follow: int | None) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(_TIMEOUT_S)
        try:
            client.connect(address)
            if _peer_uid(client) != os.geteuid():
                return False
            socket.send_fds(client, [b"follow"], [] if follow is None else [follow])
            return client.recv(len(_TAKEN)) == _TAKEN
        except OSError:  # it ends in this moment
            return False


def accept(elected: socket.socket) -> list[int]:
    """Return the pidfds that another recorder of the same user hands over."""
    try:
        client, _ = elected.accept()
    except OSError:  # it has gone again
        return []
    with client:
        client.settimeout(_TIMEOUT_S)
        if _peer_uid(client) != os.geteuid():
            return []
        try:
            received = socket.recv_fds(client, 64, 4)[1]
            client.sendall(_TAKEN)
            return list(received)
        except OSError:
            return []


def _peer_uid(peer: socket.socket) -> int:
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])
