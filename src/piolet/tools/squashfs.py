"""Squashfs images: their superblock, and single files out of them with `unsquashfs`."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import ParseError, storage_errors
from piolet.core.run import Runner

# Squashfs 4.0, little-endian: magic, inodes, time, block size, fragments, compression, log2 of the block size,
# flags, ids, major, minor, root inode, bytes used (Linux: fs/squashfs/squashfs_fs.h, struct squashfs_super_block).
_SUPERBLOCK = struct.Struct("<4sIIIIHHHHHHQQ")
_MAGIC = b"hsqs"
_MAJOR = 4
_COMPRESSIONS = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Superblock:
    """What the first bytes of an image say; `made_s` is in seconds since 1970."""

    inodes: int
    made_s: int
    block_bytes: int
    compression: str
    used_bytes: int


def superblock(path: Path) -> Superblock:
    """Read the superblock of the image at `path`.

    Raises:
        StorageError: the file cannot be read.
        ParseError: it is not a squashfs 4.0 image, or it is shorter than it says.
    """
    with storage_errors(path, "read the image"), path.open("rb") as image:
        head = image.read(_SUPERBLOCK.size)
        size_bytes = path.stat().st_size
    found = parse(head, str(path))
    if found.used_bytes > size_bytes:
        raise ParseError(f"the image is torn: {size_bytes} bytes of {found.used_bytes}", source=str(path))
    return found


def parse(head: bytes, source: str) -> Superblock:
    """Parse the first 48 bytes of an image; `source` is for messages."""
    if len(head) < _SUPERBLOCK.size or head[:4] != _MAGIC:
        raise ParseError("not a squashfs image", source=source)
    _, inodes, made_s, block_bytes, _, compression, _, _, _, major, _, _, used_bytes = _SUPERBLOCK.unpack(
        head[: _SUPERBLOCK.size]
    )
    if major != _MAJOR:
        raise ParseError(f"a squashfs image of version {major}; only {_MAJOR} is known", source=source)
    return Superblock(inodes, made_s, block_bytes, _COMPRESSIONS.get(compression, "unknown"), used_bytes)


def text_of(runner: Runner, image: Path, inside: str) -> str:
    """Return the text of the file `inside` the image; empty if there is no such file."""
    argv = ["unsquashfs", "-cat", str(image), inside.lstrip("/")]
    result = runner.run(argv, timeout=_TIMEOUT_S, ok=None)
    return result.stdout if result.rc == 0 else ""
