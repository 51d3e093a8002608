"""Which checkpoints lie in a directory, and which of them are complete.

A checkpoint is a directory that has the number of its step in its name and is of a known format, itself or in
directories right below it. What holds other checkpoints is none.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Protocol

from piolet.core.errors import UsageError, storage_errors
from piolet.data.checkpoints import deepspeed, orbax, safetensors, torch_dist, torch_files
from piolet.data.checkpoints.listing import Listing


class Format(Protocol):
    """What a module of a format offers."""

    NAME: str

    def holds(self, listing: Listing, /) -> bool:
        """Return whether the directory is of this format, complete or torn."""

    def faults(self, listing: Listing, /) -> Iterator[str]:
        """Yield what keeps it from being complete."""


FORMATS: tuple[Format, ...] = (torch_dist, deepspeed, safetensors, orbax)
DELETING = ".deleting"
"""How the name of a directory ends whose deletion has begun; it starts with a full stop."""
_STEP = re.compile(r"(?:.*(?:step|iter|iteration|checkpoint|ckpt|epoch)[-_=]?)?(?P<step>\d{1,18})(?:\.ckpt)?", re.ASCII)
_NUMBER = re.compile(r"\d+")
_POINTERS = {"latest": "{}", "latest_checkpointed_iteration.txt": "iter_{:0>7}"}
"""Files that name the checkpoint to resume from, and the name for what they hold: DeepSpeed's and Megatron's."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint: complete if it has no faults.

    `frees_bytes` is what its deletion gives back: files with names elsewhere stay. `changed_s` is when anything in it
    changed last.
    """

    path: Path
    step: int
    formats: tuple[str, ...]
    faults: tuple[str, ...]
    files: int
    frees_bytes: int
    changed_s: float

    @property
    def series(self) -> str:
        """What its name is but for its numbers: steps are compared within a series only."""
        return _NUMBER.sub("#", _final_name(self.path.name))


@dataclass(frozen=True, slots=True)
class Audit:
    """What a directory holds: checkpoints by step, directories that are none, and what is left of deletions.

    `named` are the names that a file such as `latest`, or a link, points to; `dangling` those that are not there.
    """

    directory: Path
    checkpoints: tuple[Checkpoint, ...]
    unknown: tuple[str, ...]
    named: frozenset[str]
    half_deleted: tuple[Path, ...]
    dangling: tuple[str, ...]


def audit(directory: Path) -> Audit:
    """Judge what lies in `directory`.

    Raises:
        UsageError: it is no directory.
        StorageError: something in it cannot be read.
    """
    if not directory.is_dir():
        raise UsageError("no such directory", where=str(directory), remedy="give the directory that holds checkpoints")
    with storage_errors(directory, "read the checkpoints"):
        children = sorted(each for each in directory.iterdir() if each.is_dir() and not each.is_symlink())
        shown = [each for each in children if not each.name.startswith(".")]
        found = [(each, _checkpoint(each)) for each in shown]
        pointed = named(directory)
        return Audit(
            directory,
            tuple(sorted((one for _, one in found if one), key=lambda one: (one.series, one.step))),
            tuple(each.name for each, one in found if one is None),
            pointed,
            tuple(each for each in children if each.name.startswith(".") and each.name.endswith(DELETING)),
            tuple(sorted(pointed - {each.name for each in directory.iterdir()})),
        )


def named(directory: Path) -> frozenset[str]:
    """Return the names in `directory` that a file such as `latest`, or a link, says to use."""
    return frozenset(name for entry in directory.iterdir() for name in _pointed(entry, directory.resolve()))


def _pointed(entry: Path, directory: Path) -> Iterator[str]:
    if entry.is_symlink():
        target = entry.parent.resolve() / entry.readlink()
        for place in (Path(os.path.normpath(target)), target.resolve()):
            if place != directory and place.is_relative_to(directory):
                yield place.relative_to(directory).parts[0]
    elif entry.name in _POINTERS and entry.is_file():
        text = entry.read_text(encoding="utf-8", errors="replace").strip()
        if text:
            yield _POINTERS[entry.name].format(text)


def _checkpoint(path: Path) -> Checkpoint | None:
    """Return the checkpoint at `path`; None if it is none, or holds others."""
    step = _step(path.name)
    if step is None:
        return None
    found = dict(_walk(path))
    listing = Listing(path.name, dict(_sizes(path, found)), partial(_open, path))
    directories = [each for each, one in found.items() if _is_directory(one)]
    if any(_step(each.rpartition("/")[2]) not in (None, step) for each in directories):
        return None
    parts = [listing, *(listing.within(each) for each in directories if "/" not in each)]
    held = [(part, form) for part in parts for form in FORMATS if form.holds(part)]
    if not held:
        return None
    files = [one for one in found.values() if not _is_directory(one)]
    return Checkpoint(
        path,
        step,
        tuple(dict.fromkeys(form.NAME for _, form in held)),
        tuple(_faults(listing, held)),
        files=len(files),
        frees_bytes=sum(one.st_blocks * 512 for one in files if one.st_nlink == 1),
        changed_s=max(one.st_mtime for one in (path.lstat(), *found.values())),
    )


def _faults(listing: Listing, held: Sequence[tuple[Listing, Format]]) -> Iterator[str]:
    yield from torch_files.faults(listing)
    for part, form in held:
        place = "" if part is listing else f"{part.name}/"
        if part is not listing and form is not orbax:
            yield from (place + each for each in torch_files.faults(part))
        yield from (place + each for each in form.faults(part))


def _step(name: str) -> int | None:
    match = _STEP.fullmatch(_final_name(name))
    return int(match["step"]) if match else None


def _final_name(name: str) -> str:
    return name.partition(orbax.TEMPORARY)[0]


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield relative path and status of all that is below `root`, links as links; what vanishes is left out."""
    for place, directories, files in os.walk(root, onerror=_raise):
        for name in (*directories, *files):
            path = Path(place, name)
            with suppress(FileNotFoundError):
                yield path.relative_to(root).as_posix(), path.lstat()


def _sizes(root: Path, found: Mapping[str, os.stat_result]) -> Iterator[tuple[str, int]]:
    """Yield the bytes of each file that can be read, also through a link."""
    for name, status in found.items():
        with suppress(FileNotFoundError):
            target = (root / name).stat() if stat.S_ISLNK(status.st_mode) else status
            if stat.S_ISREG(target.st_mode):
                yield name, target.st_size


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _is_directory(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode)


def _open(root: Path, name: str) -> IO[bytes]:
    return (root / name).open("rb")
