"""Addresses to listen on."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

from piolet.core.errors import PioletError, Refused, UsageError


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


def check_certificate(certificate: Path, key: Path) -> None:
    """Check that a server can use a certificate and its key, before it listens.

    Raises:
        UsageError: one of them cannot be read, is none, or they do not belong together.
    """
    import ssl  # noqa: PLC0415 - only servers need it

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        apart = error.reason == "KEY_VALUES_MISMATCH"
        what = "the key is not that of the certificate" if apart else "not a certificate and a key without a password"
        remedy = "give the files that belong together, in PEM"
        raise UsageError(what, where=f"{certificate}, {key}", remedy=remedy) from error
    except OSError as error:
        what = f"cannot read the certificate or its key: {error.strerror}"
        raise UsageError(what, where=f"{certificate}, {key}", remedy="check the paths and permissions") from error


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
