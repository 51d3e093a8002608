"""Addresses to listen on."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

from piolet.core.errors import PioletError, Refused


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; port 0 takes a free one.

    Raises:
        PioletError: the address is taken, or not this machine's.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise PioletError(
            f"cannot listen on {host}:{port}: {error.strerror}", remedy="choose another port, 0 for any free one"
        ) from error


def secured(host: str, port: int, certificate: Path | None, setting: str) -> tuple[socket.socket, str]:
    """Return a listening socket, and its address for people.

    Raises:
        Refused: others could reach the address, and there is no certificate; `setting` is where it would be.
        PioletError: see `bound`.
    """
    if certificate is None and not is_loopback(host):
        raise Refused(
            f"{host} can be reached from other machines, and without TLS they would read along",
            remedy=f"set {setting}.certificate and {setting}.key, or stay on 127.0.0.1 behind a proxy or an SSH tunnel",
        )
    listening = bound(host, port)
    scheme = "https" if certificate else "http"
    return listening, f"{scheme}://{host if ':' not in host else f'[{host}]'}:{listening.getsockname()[1]}"


def is_loopback(host: str) -> bool:
    """Tell whether an address is one that only this machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free now; somebody else may take it."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
