"""The packages of rpm's database in SQLite, as rpm 4.16 and later keep it (RHEL 9, Fedora). The bytes are untrusted.

Each row holds a header: big-endian counts of entries and of bytes, entries of 16 bytes (tag, type, offset, count), and
the values. Source: "RPM V4 header" of rpm's reference manual, lib/rpmtag.h.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

from piolet.core.errors import ParseError

_COUNTS = struct.Struct(">II")
_ENTRY = struct.Struct(">IIII")
_INT32, _STRING = 4, 6
_NAME, _VERSION, _RELEASE, _EPOCH, _ARCHITECTURE, _SOURCE = 1000, 1001, 1002, 1003, 1022, 1044
_KEY = "gpg-pubkey"
"""How rpm keeps the keys that it trusts: as packages, which they are not."""

_JOURNAL = slice(18, 20)
_PLAIN = b"\x01\x01"
_STEPS = 50_000_000


@dataclass(frozen=True, slots=True)
class Installed:
    """A package, with its version as ``[epoch:]version-release``; `source` is the file name of its source package."""

    name: str
    version: str
    architecture: str = ""
    source: str = ""


def packages(content: bytes, source: str) -> list[Installed]:
    """Return the packages in the database of these bytes; ParseError if they are none, or torn."""
    try:
        return [_installed(_values(blob)) for blob in _blobs(content) if _values(blob).get(_NAME) != _KEY]
    except (sqlite3.Error, struct.error, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ParseError(f"not a database of rpm: {str(error)[:80]}", source=source) from error


def _blobs(content: bytes) -> Iterator[bytes]:
    """Yield the rows. The file may say that it has a journal of its own, which bytes in memory cannot have."""
    plain = bytearray(content)
    plain[_JOURNAL] = _PLAIN
    with closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(bytes(plain))
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("PRAGMA cell_size_check = ON")
        database.set_progress_handler(lambda: 1, _STEPS)  # a schema made by somebody cannot run for ever
        yield from (blob for (blob,) in database.execute("SELECT blob FROM Packages"))


def _values(header: bytes) -> Mapping[int, str | int]:
    """Return the strings and numbers of a header, by tag; of lists the first."""
    entries, size = _COUNTS.unpack_from(header)
    start = _COUNTS.size + entries * _ENTRY.size
    if start + size > len(header):
        raise ValueError("a header longer than its row")
    found: dict[int, str | int] = {}
    for number in range(entries):
        tag, kind, offset, _ = _ENTRY.unpack_from(header, _COUNTS.size + number * _ENTRY.size)
        at = start + offset
        if kind == _STRING:
            found[tag] = header[at : header.index(b"\0", at)].decode("utf-8", "replace")
        elif kind == _INT32:
            [found[tag]] = struct.unpack_from(">I", header, at)
    return found


def _installed(values: Mapping[int, str | int]) -> Installed:
    epoch = f"{values[_EPOCH]}:" if values.get(_EPOCH) else ""
    version = f"{epoch}{values[_VERSION]}-{values[_RELEASE]}"
    return Installed(str(values[_NAME]), version, str(values.get(_ARCHITECTURE, "")), str(values.get(_SOURCE, "")))
