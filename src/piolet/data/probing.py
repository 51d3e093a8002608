"""How a file system reads: a whole file in order against small pieces at random, in pairs of the same moment.

The file is nameless from its first byte on: however the probe ends, no byte is left. Caches of servers and of disks
are not evaded, and cannot be from here.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import Refused, UsageError, storage_errors
from piolet.core.text import size

BLOCK_BYTES = 4 << 20
"""A stripe of Lustre as sites set it: what a good reader asks for at once."""
PIECE_BYTES = 112 << 10
"""An image of ImageNet, on average."""
PIECES = 64
SLOW_S = 2.6e-3
"""Where disks end and flash begins: the geometric mean of 13.5 ms and 0.5 ms, medians of pieces of this size on a
parallel file system of disks and one of flash."""
_RESERVE = 2
"""The space that must be free, in sizes of the file."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One round: bytes per second in order, and the seconds that each random piece took."""

    sequential_rate: float
    piece_s: tuple[float, ...]

    @property
    def share(self) -> float:
        """What random reading gets of the rate in order."""
        return PIECE_BYTES * len(self.piece_s) / sum(self.piece_s) / self.sequential_rate


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured, and whether the kernel's cache was passed by (`direct`) or only asked to forget."""

    pairs: tuple[Pair, ...]
    direct: bool

    @property
    def piece_s(self) -> float:
        """The median of all random pieces, in seconds."""
        return statistics.median(each for pair in self.pairs for each in pair.piece_s)

    @property
    def slow(self) -> bool:
        """Whether random reads take as long as on disks."""
        return self.piece_s > SLOW_S


def probe(directory: Path, *, size_bytes: int, rounds: int, report: Callable[[str], None] = lambda _: None) -> Probe:
    """Write a temporary file of `size_bytes` (whole blocks) in `directory` and read it in `rounds` pairs.

    Raises:
        UsageError: `directory` is none, or the size is less than a block.
        Refused: less than twice the size is free.
        StorageError: it cannot be written or read.
    """
    if not directory.is_dir():
        raise UsageError("no such directory", where=str(directory), remedy="give a directory that you may write to")
    blocks = size_bytes // BLOCK_BYTES
    if not blocks:
        raise UsageError("the file would be smaller than one block", where="--size", remedy="give 4MiB or more")
    with storage_errors(directory, "probe"):
        _check_space(directory, blocks * BLOCK_BYTES)
        with _nameless(directory) as (writer, reader, direct):
            report("writing")
            _fill(writer, blocks)
            pairs = []
            for number in range(rounds):
                report(f"reading, round {number + 1} of {rounds}")
                pairs.append(_pair(reader, blocks))
    return Probe(tuple(pairs), direct)


def _check_space(directory: Path, wanted: int) -> None:
    there = os.statvfs(directory)
    free = there.f_bavail * there.f_frsize
    if free < _RESERVE * wanted:
        raise Refused(
            f"{size(free)} are free, and a probe of {size(wanted)} wants twice its size",
            where=str(directory),
            remedy="give a smaller --size, or make space",
        )


@contextmanager
def _nameless(directory: Path) -> Iterator[tuple[int, int, bool]]:
    """Yield descriptors to write and to read a new file that has no name any more, and whether reading is direct."""
    path = directory / f".piolet-probe.{os.urandom(6).hex()}"
    writer = reader = -1
    try:
        writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        reader, direct = _open(path)
        path.unlink()
        yield writer, reader, direct
    finally:
        path.unlink(missing_ok=True)
        for each in (writer, reader):
            if each >= 0:
                os.close(each)


def _open(path: Path) -> tuple[int, bool]:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECT), True
    except OSError as error:
        if error.errno != errno.EINVAL:  # as open(2) says of file systems without O_DIRECT
            raise
        return os.open(path, os.O_RDONLY), False


def _fill(writer: int, blocks: int) -> None:
    """Write blocks of noise, which no file system can shorten, and wait until they are on the device."""
    for _ in range(blocks):
        block = memoryview(os.urandom(BLOCK_BYTES))
        while block:
            block = block[os.write(writer, block) :]
    os.fsync(writer)


def _pair(reader: int, blocks: int) -> Pair:
    with mmap.mmap(-1, BLOCK_BYTES) as block, mmap.mmap(-1, PIECE_BYTES) as piece:
        _forget(reader)
        sequential_s = sum(_timed(reader, block, number * BLOCK_BYTES) for number in range(blocks))
        _forget(reader)
        last = blocks * BLOCK_BYTES // PIECE_BYTES
        chosen = random.sample(range(last), min(PIECES, last))
        piece_s = tuple(_timed(reader, piece, number * PIECE_BYTES) for number in chosen)
    return Pair(blocks * BLOCK_BYTES / sequential_s, piece_s)


def _forget(reader: int) -> None:
    """Ask the kernel to drop what it has of the file; what was read directly it does not have."""
    os.posix_fadvise(reader, 0, 0, os.POSIX_FADV_DONTNEED)


def _timed(reader: int, into: mmap.mmap, offset: int) -> float:
    """Return the seconds that filling `into` from `offset` took."""
    began_s = time.perf_counter()
    read = os.preadv(reader, [into], offset)
    took_s = time.perf_counter() - began_s
    if read != len(into):
        raise OSError(errno.EIO, "the file is shorter than it was written")
    return took_s
