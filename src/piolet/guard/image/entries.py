"""The files of an image, layer by layer: an OCI archive or directory, a squashfs file, or a root directory."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import posixpath
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import zstandard

from piolet.core.errors import ParseError, StorageError, UsageError
from piolet.core.run import Runner
from piolet.guard.policy import ImageLimits
from piolet.tools import squashfs
from piolet.tools.oci import manifest
from piolet.tools.oci.layout import Layout
from piolet.tools.oci.manifest import Descriptor

UNREADABLE = (
    *(tarfile.TarError, zlib.error, zstandard.ZstdError, EOFError, OSError, ValueError),
    *(ParseError, StorageError),
)
"""What the readers of layers raise over bytes that are not what they say."""

_ZSTD = b"\x28\xb5\x2f\xfd"
_GZIP = b"\x1f\x8b"
_MAX_HEADER_BYTES = 1 << 20
_SMALL_BYTES = 64 << 20
_PIECE_BYTES = 1 << 20
_CAPABILITY = "SCHILY.xattr.security.capability"
_KINDS = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK, tarfile.LNKTYPE: stat.S_IFLNK}


class Bomb(Exception):  # noqa: N818 - the state of the image
    """It goes beyond a limit; the message says which."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an image: its path without a leading slash, its mode as in stat(2), its size.

    `read` returns the next bytes of a regular file; those of a layer only until the next entry is asked for.
    """

    path: str
    mode: int
    size_bytes: int
    read: Callable[[int], bytes]
    has_capabilities: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """Layers, lowest first, each read once when it is called for; variables and build steps if it says them."""

    layers: tuple[Callable[[], Iterator[Entry]], ...]
    env: tuple[str, ...] = ()
    history: tuple[str, ...] = ()


@contextmanager
def opened(path: Path, limits: ImageLimits, runner: Runner) -> Iterator[Image]:
    """Yield the image at `path`; of an index of several architectures, the one of this machine.

    Raises:
        UsageError: there is nothing.
        ParseError: it is neither an OCI layout, nor a squashfs file, nor a directory.
        ToolMissing, ToolError: a squashfs file cannot be mounted.
    """
    if not path.exists():
        raise UsageError("no such image", where=str(path), remedy="give an OCI archive, a squashfs file or a directory")
    if path.is_dir() and not (path / "oci-layout").is_file():
        yield Image((lambda: _below(path),))
    elif path.is_dir() or not squashfs.is_image(path):
        yield _oci(Layout(path), limits)
    else:
        squashfs.superblock(path)
        with squashfs.mounted(runner, path) as root:
            yield Image((lambda: _below(root),))


def _oci(layout: Layout, limits: ImageLimits) -> Image:
    source, machine = str(layout.path), os.uname().machine
    content = layout.read(manifest.choose(layout.index, machine, source))
    if manifest.is_index(content, source):
        content = layout.read(manifest.choose(content, machine, source))
    found = manifest.parse_manifest(content, source)
    config = layout.read(found.config)
    if manifest.digest_of(config) != found.config.digest:
        raise ParseError("the configuration is not the one that the manifest names", source=source)
    layers = tuple(lambda each=each: _in_layer(layout, each, limits) for each in found.layers)
    return Image(layers, manifest.parse_config(config, source).env, _history(json.loads(config)))


def _history(config: dict[str, Any]) -> tuple[str, ...]:
    steps = config.get("history")
    return tuple(str(step.get("created_by", "")) for step in steps or [] if isinstance(step, dict))


class _Measured:
    """A stream that counts and digests what is read of it; Bomb beyond `most` bytes."""

    def __init__(self, stream: IO[bytes], most: int, why: str) -> None:
        self._stream, self._left, self._why = stream, most, why
        self.sha256 = hashlib.sha256()

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes."""
        piece = self._stream.read(count)
        self._left -= len(piece)
        if self._left < 0:
            raise Bomb(self._why)
        self.sha256.update(piece)
        return piece


class _Member(tarfile.TarInfo):
    """A header that does not let its extensions, which are read whole, be of any size."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:  # noqa: ANN401 - as in tarfile, which documents this hook
        if self.type not in tarfile.REGULAR_TYPES and self.size > _MAX_HEADER_BYTES:
            raise Bomb(f"a header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc] # not in the stubs


def _in_layer(layout: Layout, layer: Descriptor, limits: ImageLimits) -> Iterator[Entry]:
    """Yield what is in a layer; ValueError in the end if it is not the one that its digest names."""
    most = int(min(limits.max_bytes, max(_SMALL_BYTES, limits.max_ratio * layer.size_bytes)))
    with layout.blob(layer) as blob:
        magic = blob.read(4)
        blob.seek(0)
        packed = _Measured(blob, layer.size_bytes, "longer than the manifest says")
        why = f"a layer of {layer.size_bytes} bytes unpacks to over {most}"
        unpacked = _Measured(_uncompressed(cast("BinaryIO", packed), magic), most, why)
        with tarfile.open(fileobj=cast("BinaryIO", unpacked), mode="r|", tarinfo=_Member) as archive:
            while member := archive.next():
                archive.members.clear()  # type: ignore[attr-defined] # it would remember all
                yield _entry(archive, member)
        while unpacked.read(_PIECE_BYTES):
            pass
    if f"sha256:{packed.sha256.hexdigest()}" != layer.digest:
        raise ValueError(f"it is not {layer.digest}")


def _uncompressed(blob: BinaryIO, magic: bytes) -> IO[bytes]:
    if magic.startswith(_GZIP):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=blob))
    if magic == _ZSTD:
        return zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True)
    return blob


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    path = posixpath.normpath(member.name.lstrip("/"))
    kind = stat.S_IFREG if member.isreg() else _KINDS.get(member.type, 0)
    stream = archive.extractfile(member) if member.isreg() else None
    capable = _CAPABILITY in member.pax_headers
    return Entry(path, kind | stat.S_IMODE(member.mode), member.size, stream.read if stream else _nothing, capable)


def _nothing(_: int) -> bytes:
    return b""


def _below(root: Path) -> Iterator[Entry]:
    """Yield what is below a directory; links are not followed, and what cannot be listed cannot be read either."""
    failed: list[OSError] = []
    for directory, names, files in os.walk(root, onerror=failed.append):
        names.sort()
        for name in (*names, *sorted(files)):
            yield from _file(Path(directory, name), root)
    for error in failed:
        yield Entry(os.path.relpath(error.filename, root), stat.S_IFREG, 1, _failing(error))


def _failing(error: OSError) -> Callable[[int], bytes]:
    def read(_: int) -> bytes:
        raise error

    return read


def _file(path: Path, root: Path) -> Iterator[Entry]:
    """Yield one file, which is opened when it is first read and closed with the next."""
    found = path.lstat()
    stream: list[BinaryIO] = []

    def read(count: int) -> bytes:
        if not stream:
            stream.append(os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb"))
        return stream[0].read(count)

    regular = stat.S_ISREG(found.st_mode)
    try:
        yield Entry(str(path.relative_to(root)), found.st_mode, found.st_size, read if regular else _nothing)
    finally:
        for each in stream:
            each.close()
