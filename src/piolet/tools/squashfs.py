"""Squashfs images: their superblock, single files out of them with `unsquashfs`, new ones with `mksquashfs`."""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from piolet.core.errors import ParseError, ToolError, storage_errors
from piolet.core.run import PIPE, STDOUT, Runner, SystemRunner, end

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


def is_image(path: Path) -> bool:
    """Return whether the file at `path` begins as a squashfs image does."""
    with storage_errors(path, "read the image"), path.open("rb") as image:
        return image.read(len(_MAGIC)) == _MAGIC


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


@contextlib.contextmanager
def mounted(runner: Runner, image: Path) -> Iterator[Path]:
    """Yield a directory that shows what is in `image`, mounted with squashfuse as this user; nothing is unpacked.

    Raises:
        ToolMissing, ToolError: squashfuse is not installed, or cannot mount it.
    """
    with tempfile.TemporaryDirectory(prefix="piolet-image-") as root:
        runner.run(["squashfuse", "-o", "ro,nosuid,nodev", str(image), root], timeout=_TIMEOUT_S)
        try:
            yield Path(root)
        finally:
            runner.run(["fusermount3", "-u", root], timeout=_TIMEOUT_S)


def pack(image: Path, feed: Callable[[BinaryIO], None], *, said: Path) -> None:
    """Make the image of the tar archive that `feed` writes; what mksquashfs says goes to the file `said`.

    All files are root's, whom the container shows as the user himself. Zstandard at level 3: images are read often
    and made once, while somebody waits.

    Raises:
        ToolMissing, ToolError: mksquashfs is not installed, or failed.
    """
    argv = ["mksquashfs", "-", str(image), "-tar", "-noappend", "-all-root", "-root-mode", "755", "-no-progress"]
    argv += ["-quiet", "-comp", "zstd", "-Xcompression-level", "3"]
    with said.open("w") as log:
        packer = SystemRunner().start(argv, stdin=PIPE, stdout=log, stderr=STDOUT)
    try:
        with contextlib.suppress(BrokenPipeError):  # it has died: its status says so
            tar = cast("BinaryIO", packer.stdin.buffer)  # type: ignore[union-attr] # a pipe, as asked for
            feed(tar)
            tar.close()
        status = packer.wait()
    finally:
        end(packer, 0)
    if status:
        raise ToolError(argv, status, said.read_text("utf-8", "replace"), remedy="check space and quota of the store")


def make_argv(source: Path, image: Path) -> list[str]:
    """Return the command that packs `source`, with zstd and without the time of making, so that it can be repeated."""
    compression = ("-comp", "zstd", "-Xcompression-level", "3")
    quiet = ("-quiet", "-no-progress")
    return ["mksquashfs", str(source), str(image), "-noappend", *compression, "-mkfs-time", "0", "-no-xattrs", *quiet]


def unpack_argv(image: Path, target: Path) -> list[str]:
    """Return the command that unpacks `image` into the new directory `target`."""
    return ["unsquashfs", "-quiet", "-no-progress", "-no-xattrs", "-dest", str(target), str(image)]
