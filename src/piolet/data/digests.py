"""BLAKE3 digests of files, and lists of them as b3sum(1) writes and checks them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from piolet.core.errors import ParseError, storage_errors

_BLOCK_BYTES = 1 << 20


class Hashed:
    """A file that is read or written by somebody else, with the bytes and the digest of what went by so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._state = blake3()
        self.size_bytes = 0

    def read(self, most: int = _BLOCK_BYTES) -> bytes:
        """Read as the file does."""
        block = self._file.read(most)
        self._pass(block)
        return block

    def write(self, block: bytes) -> int:
        """Write as the file does."""
        self._pass(block)
        return self._file.write(block)

    def tell(self) -> int:
        """Return how many bytes went by."""
        return self.size_bytes

    def hexdigest(self) -> str:
        """Return the digest of what went by, in hexadecimal."""
        return self._state.hexdigest()

    def digest(self) -> str:
        """Read what is left and return the digest of all, in hexadecimal."""
        while self.read():
            pass
        return self.hexdigest()

    def _pass(self, block: bytes) -> None:
        self._state.update(block)
        self.size_bytes += len(block)


def of_file(path: Path) -> str:
    """Return the digest of a file; StorageError if it cannot be read."""
    return measured(str(path))[0]


def measured(path: str) -> tuple[str, int]:
    """Return the digest and the bytes of a file; StorageError if it cannot be read.

    Directories of many small files cost the calls: no object stands between them and the kernel.
    """
    state, size_bytes = blake3(), 0
    with storage_errors(path, "read"):
        file = os.open(path, os.O_RDONLY)
        try:
            while block := os.read(file, _BLOCK_BYTES):
                state.update(block)
                size_bytes += len(block)
        finally:
            os.close(file)
    return state.hexdigest(), size_bytes


def files_below(directory: Path) -> list[str]:
    """Return the regular files below `directory`, relative to it and in order; StorageError if one is unreadable."""
    found: list[str] = []
    pending = [str(directory)]
    start = len(pending[0]) + 1
    with storage_errors(directory, "list"):
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        found.append(entry.path[start:])
    return sorted(found)


def text_of(digests: Iterable[tuple[str, str]]) -> str:
    """Return the list of (name, digest): names with line ends or backslashes are escaped, and their lines marked."""
    return "".join(_line(name, digest) for name, digest in digests)


def _line(name: str, digest: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"


def parse(text: str, source: str) -> dict[str, str]:
    """Return the digests of such a list by name; ParseError if a line is none."""
    return dict(_entries(text, source))


def _entries(text: str, source: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n"):
        if not line:
            continue
        digest, blanks, name = line.removeprefix("\\").partition("  ")
        if not blanks or len(digest) != 2 * blake3().digest_size:
            raise ParseError("not a line of checksums", source=source, text=line)
        yield _plain(name) if line.startswith("\\") else name, digest


def _plain(escaped: str) -> str:
    return "\\".join(part.replace("\\n", "\n") for part in escaped.split("\\\\"))


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return what is different, missing or too many, in words."""
    missing = [f"{name}: missing" for name in sorted(expected.keys() - found.keys())]
    added = [f"{name}: not in the list" for name in sorted(found.keys() - expected.keys())]
    changed = [f"{name}: different" for name in sorted(expected.keys() & found.keys()) if expected[name] != found[name]]
    return changed + missing + added
