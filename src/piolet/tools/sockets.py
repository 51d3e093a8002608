"""Who listens where: /proc/PID/net/tcp and the sockets among a process's descriptors. Source: proc(5)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from piolet.core.errors import ParseError

_LISTEN = "0A"
_LOCAL, _STATE, _INODE = 1, 3, 9


@dataclass(frozen=True, slots=True)
class Listener:
    """A TCP socket that accepts connections at an address; `inode` is how descriptors name it."""

    address: IPv4Address | IPv6Address
    port: int
    inode: int

    @property
    def everywhere(self) -> bool:
        """Whether it accepts on every address of the node."""
        return self.address.is_unspecified

    @property
    def local(self) -> bool:
        """Whether only this node reaches it."""
        mapped = self.address.ipv4_mapped if isinstance(self.address, IPv6Address) else None
        return (mapped or self.address).is_loopback


def parse(text: str) -> tuple[Listener, ...]:
    """Parse /proc/net/tcp or tcp6: those that listen. ParseError if it has another form."""
    rows = [line.split() for line in text.splitlines()[1:]]
    try:
        return tuple(_listener(row) for row in rows if row[_STATE] == _LISTEN)
    except (IndexError, ValueError) as error:
        raise ParseError(f"not a table of sockets: {error}", source="/proc/net/tcp", text=text[:200]) from error


def _listener(row: list[str]) -> Listener:
    host, _, port = row[_LOCAL].partition(":")
    words = (host[at : at + 8] for at in range(0, len(host), 8))
    packed = b"".join(int(word, 16).to_bytes(4, "little") for word in words)  # each word in the order of the host
    return Listener(ip_address(packed), int(port, 16), int(row[_INODE]))


def listeners(process: Path) -> tuple[Listener, ...]:
    """Return all listeners of the network namespace that the process of this /proc directory is in."""
    found: list[Listener] = []
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            found += parse((process / "net" / name).read_text(encoding="ascii"))
    return tuple(found)


def inodes(process: Path) -> Iterator[int]:
    """Yield the inodes of the sockets that a process has open; none if it has ended or is another user's."""
    with suppress(OSError):
        for entry in (process / "fd").iterdir():
            with suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    yield int(target[8:-1])
