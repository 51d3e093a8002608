"""Moving a file or directory to another file system: copied, read back, renamed, and only then deleted where it was.

What a kill leaves is gone on with: the copy grows under a hidden name, and what is in it already is not copied again.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import PioletError, Refused, UsageError, storage_errors
from piolet.data import digests

_WORKERS = 8
"""File systems over a network answer many at once; threads are enough, since reading and hashing leave Python."""

_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Moved:
    """What is at the target now, and whether the source is gone."""

    files: int
    size_bytes: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the source, by its path below it, as it was when it was listed."""

    name: str
    size_bytes: int
    mtime_ns: int


def move(source: Path, target: Path, *, keep: bool, report: Callable[[int, int], None] = lambda *_: None) -> Moved:
    """Move `source` to `target`; with `keep` copy it. `report` is shown the files that are done, and all.

    Modes and times are kept; owners, hard links and extended attributes are not.

    Raises:
        UsageError, Refused: there is nothing to move, or something at the target.
        StorageError: something cannot be read or written; going on later is possible.
        PioletError: a copy differs from its source, or the source has changed; both stay.
    """
    _check(source, target)
    partial = target.with_name(f".{target.name}.moving")
    with storage_errors(source, "move"):
        files = sorted(_files(source), key=lambda each: each.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            _make_directories(source, partial)
        with ThreadPoolExecutor(_WORKERS) as pool:
            for done, _ in enumerate(pool.map(lambda each: _copy(source, partial, each), files), 1):
                report(done, len(files))
        _finish_directories(source, partial)
        partial.rename(target)
        if not keep:
            _delete(source, files)
    return Moved(len(files), sum(each.size_bytes for each in files), not keep)


def _check(source: Path, target: Path) -> None:
    if not source.exists():
        raise UsageError("there is nothing to move", where=str(source), remedy="check the name of the source")
    if os.path.lexists(target):
        raise Refused("the target is there already", where=str(target), remedy="choose another name, or delete it")
    if target.resolve().is_relative_to(source.resolve()):
        raise Refused("the target lies in what is moved", where=str(target), remedy="choose a place beside the source")


def _files(source: Path) -> Iterator[_File]:
    names = digests.files_below(source) if source.is_dir() else [""]
    for name in names:
        status = (source / name).stat()
        yield _File(name, status.st_size, status.st_mtime_ns)


def _entries(source: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield directories and links, relative to the source, those above before what is in them."""
    for above, directories, names in os.walk(source):
        for name in sorted([*directories, *names]):
            path = Path(above, name)
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode):
                yield path.relative_to(source), status
            elif not stat.S_ISREG(status.st_mode):
                raise Refused(
                    "neither a file, a directory nor a link", where=str(path), remedy="delete it, or keep it there"
                )


def _make_directories(source: Path, partial: Path) -> None:
    partial.mkdir(mode=0o700, exist_ok=True)
    for name, status in _entries(source):
        if stat.S_ISDIR(status.st_mode):
            (partial / name).mkdir(mode=0o700, exist_ok=True)
        elif not os.path.lexists(partial / name):
            (partial / name).symlink_to((source / name).readlink())


def _finish_directories(source: Path, partial: Path) -> None:
    """Give directories their modes and times, the deepest first, now that nothing is written into them."""
    directories = [name for name, status in _entries(source) if stat.S_ISDIR(status.st_mode)]
    for name in [*reversed(directories), Path()]:
        if (source / name).is_dir():
            shutil.copystat(source / name, partial / name)


def _copy(source: Path, partial: Path, file: _File) -> None:
    """Copy a file unless that was done before, and read the copy back; a copy has its time only if it is right."""
    near, far = source / file.name, partial / file.name
    if _is_copy(far, file):
        return
    with near.open("rb") as reader, far.open("wb") as writer:
        hashed = digests.Hashed(reader)
        while block := hashed.read(_BLOCK_BYTES):
            writer.write(block)
        digest = hashed.digest()
        writer.flush()
        os.fsync(writer.fileno())
        os.posix_fadvise(writer.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # so that the file system is read, not memory
    if digests.of_file(far) != digest:
        raise PioletError(
            "the copy differs from its source", where=str(far), remedy="move it again; tell the operators"
        )
    _unchanged(near, file)
    shutil.copystat(near, far)


def _is_copy(path: Path, file: _File) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return (status.st_size, status.st_mtime_ns) == (file.size_bytes, file.mtime_ns)


def _unchanged(path: Path, file: _File) -> None:
    if not _is_copy(path, file):
        raise PioletError(
            "the source has changed while it was moved", where=str(path), remedy="move it when nothing writes to it"
        )


def _delete(source: Path, files: list[_File]) -> None:
    """Delete the source if it is what was copied: nothing changed, nothing new."""
    for each in files:
        _unchanged(source / each.name, each)
    if source.is_dir():
        if len(files) != len(digests.files_below(source)):
            raise PioletError(
                "files were added while it was moved", where=str(source), remedy="it stays; see what is new in it"
            )
        shutil.rmtree(source)
    else:
        source.unlink()
