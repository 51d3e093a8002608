"""Layers on their way in: verified, resumed where a killed transfer stopped, uncompressed beside."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from piolet.core.errors import PioletError
from piolet.tools.oci.manifest import Descriptor
from piolet.tools.oci.registry import RangeIgnored, Registry

_CHUNK_BYTES = 1 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Decompressor(Protocol):
    """Turns chunks into chunks."""

    def decompress(self, data: bytes, /) -> bytes:
        """Return what `data` adds."""
        ...


def download(registry: Registry, descriptor: Descriptor, directory: Path, count: Callable[[int], None]) -> Path:
    """Fetch a blob into `directory` and return its path; what is there of it already is not fetched again.

    `count` is told the bytes as they come. Raises PioletError if the content is not what its digest says.
    """
    whole = directory / descriptor.digest.removeprefix("sha256:")
    if whole.is_file():
        count(descriptor.size_bytes)
        return whole
    partial = _adopted(whole)
    registry.retried(lambda: _transfer(registry, descriptor, partial, count))
    _verify(partial, descriptor)
    partial.replace(whole)
    return whole


def uncompress(source: BinaryIO, target: Path, diff_id: str, count: Callable[[int], None] = lambda _: None) -> None:
    """Write the layer in `source` uncompressed to `target`, and check that it is the one that `diff_id` names."""
    summed = hashlib.sha256()
    with target.open("wb") as out:
        for chunk in _uncompressed(source, count):
            summed.update(chunk)
            out.write(chunk)
    if f"sha256:{summed.hexdigest()}" != diff_id:
        raise PioletError("a layer is not what the image says", where=diff_id, remedy="pull or save the image again")


def _uncompressed(source: BinaryIO, count: Callable[[int], None]) -> Iterator[bytes]:
    first = source.read(_CHUNK_BYTES)
    decompressor = _decompressor(first[:4])
    chunk = first
    while chunk:
        count(len(chunk))
        yield decompressor.decompress(chunk) if decompressor else chunk
        chunk = source.read(_CHUNK_BYTES)


def _decompressor(magic: bytes) -> Decompressor | None:
    if magic.startswith(_GZIP):
        return _Gzip()
    if magic == _ZSTD:
        import zstandard  # noqa: PLC0415 - few images need it

        return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
    return None


class _Gzip:
    """Gzip of any number of members, as parallel compressors write it."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)

    def decompress(self, data: bytes, /) -> bytes:
        found = []
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=31)
            try:
                found.append(self._member.decompress(data))
            except zlib.error as error:
                raise PioletError(f"a layer is torn: {error}", remedy="pull or save the image again") from error
            data = self._member.unused_data
        return b"".join(found)


def _adopted(whole: Path) -> Path:
    """Return the partial file to go on with: one whose process on this host is gone, taken by a rename."""
    host = os.uname().nodename
    own = whole.with_name(f".{whole.name}~{os.urandom(4).hex()}~{host}~{os.getpid()}")
    for left in whole.parent.glob(f".{whole.name}~*~{host}~*"):
        if not Path("/proc", left.name.rpartition("~")[2]).exists():
            with contextlib.suppress(FileNotFoundError):
                return left.rename(own)
    return own


def _transfer(registry: Registry, descriptor: Descriptor, partial: Path, count: Callable[[int], None]) -> None:
    there = partial.stat().st_size if partial.exists() else 0
    if there >= descriptor.size_bytes:
        return
    try:
        with registry.blob(descriptor, there) as chunks, partial.open("ab") as out:
            for chunk in chunks:
                out.write(chunk)
                count(len(chunk))
    except RangeIgnored:
        partial.unlink()
        _transfer(registry, descriptor, partial, count)


def _verify(partial: Path, descriptor: Descriptor) -> None:
    with partial.open("rb") as content:
        digest = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
    if digest != descriptor.digest:
        partial.unlink()
        raise PioletError(
            "the registry sent a layer that is not what it should be",
            where=descriptor.digest,
            remedy="try again; if it happens again, the registry's storage is damaged",
        )
