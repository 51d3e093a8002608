"""What is staged, a file or a directory, as one run of bytes: its files one after another, cut into pieces."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from itertools import accumulate
from pathlib import Path

from piolet.core.errors import Refused, UsageError, storage_errors

PIECE_BYTES = 1 << 20
MAX_ENTRIES = 50_000
"""A PyTorch environment has 22 806. What has more is packed first: every node would create each of them."""

_PERMISSIONS, _OWNER = 0o777, 0o700
"""Of directories the owner keeps all rights, else the copy could not be deleted."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, directory or link by its path below the source (empty: the source itself); files alone have a size."""

    path: str
    mode: int
    size_bytes: int
    mtime_ns: int
    link: str = ""


@dataclass(frozen=True, slots=True)
class Tree:
    """All entries, directories before what is in them; `files` are those with bytes, and `ends` where each ends."""

    entries: tuple[Entry, ...]
    files: tuple[Entry, ...] = field(init=False)
    ends: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        files = tuple(each for each in self.entries if each.size_bytes)
        object.__setattr__(self, "files", files)
        object.__setattr__(self, "ends", tuple(accumulate(each.size_bytes for each in files)))

    @property
    def size_bytes(self) -> int:
        """The bytes of all files."""
        return self.ends[-1] if self.ends else 0

    @property
    def pieces(self) -> int:
        """Into how many pieces it is cut."""
        return -(-self.size_bytes // PIECE_BYTES)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.entries[0].mode)

    @property
    def digest(self) -> str:
        """What tells this state of the source from others: a digest of names, sizes and times."""
        return hashlib.sha256(self.to_json().encode("utf-8", "surrogateescape")).hexdigest()

    def to_json(self) -> str:
        """Return it as one line."""
        return json.dumps([astuple(each) for each in self.entries])

    @classmethod
    def from_json(cls, text: str) -> Tree:
        """Return the tree that `to_json` wrote."""
        return cls(tuple(Entry(*row) for row in json.loads(text)))

    def extents(self, piece: int) -> Iterator[tuple[Entry, int, int]]:
        """Yield file, offset in it, and length, of each part of a piece."""
        at, end = piece * PIECE_BYTES, min((piece + 1) * PIECE_BYTES, self.size_bytes)
        index = bisect_right(self.ends, at)
        while at < end:
            entry = self.files[index]
            offset = at - (self.ends[index] - entry.size_bytes)
            length = min(entry.size_bytes - offset, end - at)
            yield entry, offset, length
            at, index = at + length, index + 1

    def read(self, root: Path, piece: int) -> bytes:
        """Return a piece out of the files below `root`; OSError if they are shorter than they were."""
        return b"".join(_read(root / entry.path, offset, length) for entry, offset, length in self.extents(piece))

    def write(self, root: Path, piece: int, content: bytes | bytearray) -> None:
        """Write a piece to its files below `root`, whose directories are there."""
        at = 0
        for entry, offset, length in self.extents(piece):
            _write(root / entry.path, offset, memoryview(content)[at : at + length])
            at += length

    def begin(self, root: Path) -> None:
        """Make the directories below `root`, for the user alone until all is there."""
        for each in self.entries:
            if stat.S_ISDIR(each.mode):
                (root / each.path).mkdir(mode=0o700)

    def finish(self, root: Path) -> None:
        """Make empty files and links, and give every entry the mode and time of its source."""
        for each in reversed(self.entries):
            path = root / each.path
            if each.link:
                path.symlink_to(each.link)
                continue
            if stat.S_ISREG(each.mode) and not each.size_bytes:
                path.touch()
            os.utime(path, ns=(each.mtime_ns, each.mtime_ns))
            path.chmod(each.mode & _PERMISSIONS | (_OWNER if stat.S_ISDIR(each.mode) else 0))

    def lies_at(self, root: Path) -> bool:
        """Return whether every entry is there with its size and time."""
        return all(_same(root / each.path, each) for each in self.entries)


def scan(source: Path) -> Tree:
    """Return the tree of `source`.

    Raises:
        UsageError: it is not there.
        Refused: it has more entries than nodes should create, or one that is neither file, directory nor link.
        StorageError: something cannot be read.
    """
    with storage_errors(source, "list"):
        if not source.exists():
            raise UsageError("there is nothing to stage", where=str(source), remedy="check the name of the source")
        entries = [_entry(source, source.stat(), "")]
        if source.is_dir():
            entries += _below(source)
    return Tree(tuple(entries))


def _below(source: Path) -> Iterator[Entry]:
    count = 1
    for above, directories, files in os.walk(source, onerror=_raise):
        directories.sort()
        count += len(directories) + len(files)
        if count > MAX_ENTRIES:
            raise Refused(
                f"over {MAX_ENTRIES} files and directories",
                where=str(source),
                remedy=f"pack them, and stage the image: piolet data pack {source} {source}.sqsh",
            )
        for name in sorted([*directories, *files]):
            path = Path(above, name)
            yield _entry(path, path.lstat(), path.relative_to(source).as_posix())


def _entry(path: Path, status: os.stat_result, name: str) -> Entry:
    kind = stat.S_IFMT(status.st_mode)
    if kind not in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
        raise Refused("neither a file, a directory nor a link", where=str(path), remedy="stage what does not hold it")
    size = status.st_size if kind == stat.S_IFREG else 0
    return Entry(name, status.st_mode, size, status.st_mtime_ns, str(path.readlink()) if kind == stat.S_IFLNK else "")


def _raise(error: OSError) -> None:
    raise error


def _read(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        found = os.pread(file.fileno(), length, offset)
    if len(found) != length:
        raise OSError(errno.ESTALE, "the file has changed since it was listed", str(path))
    return found


def _write(path: Path, offset: int, content: memoryview) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        while content:
            written = os.pwrite(handle, content, offset)
            offset, content = offset + written, content[written:]
    finally:
        os.close(handle)


def _same(path: Path, entry: Entry) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    if stat.S_IFMT(status.st_mode) != stat.S_IFMT(entry.mode):
        return False
    if not stat.S_ISREG(entry.mode):
        return True
    return (status.st_size, status.st_mtime_ns) == (entry.size_bytes, entry.mtime_ns)
