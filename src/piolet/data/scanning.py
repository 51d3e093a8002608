"""Counting directories: the inner loop of the walk. It runs in worker processes and shares nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from piolet.data import hubcache
from piolet.data.formats import KNOWN
from piolet.data.tally import IDLE_DAYS, SIZE_CLASSES, SMALL_CLASS, Tally

LARGE_BYTES = 1 << 30
"""Files from here on are remembered by name, as far as they are among the largest."""

_DAY_S = 86400
_BLOCK_BYTES = 512
_PLACE_DEPTH = 2
_KIND = 0o170000
"""The bits of a mode that tell files from directories (stat.S_IFMT, without a call for each file)."""

_UNREADABLE_EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class Rules:
    """How to count. `clock` is what last use means: access, modification, or newest of both."""

    now_s: float
    clock: str = "access"


@dataclass(frozen=True, slots=True)
class Pending:
    """A directory still to be counted: its path, the root that it is below, and the device of that root."""

    path: str
    root: str
    device: int


def scan(batch: Sequence[Pending], rules: Rules, budget: int) -> tuple[Tally, list[Pending]]:
    """Count the directories of `batch` and what is below, until `budget` entries; return also what is left to do.

    A directory is counted whole or not at all, so what is left is exactly what the tally lacks.
    """
    stack, tally = list(batch), Tally()
    while stack and tally.files + tally.directories + tally.others < budget:
        stack.extend(_directory(stack.pop(), rules, tally))
    return tally, stack


def _directory(pending: Pending, rules: Rules, tally: Tally) -> list[Pending]:
    """Count one directory and return those in it on the same file system."""
    below: list[Pending] = []
    try:
        with os.scandir(pending.path) as entries:
            _entries(entries, pending, rules, tally, below)
    except OSError as error:
        _note(tally, pending.path, error)
    if hubcache.is_repository(pending.path.rpartition("/")[2]):
        found = list(hubcache.leftovers(Path(pending.path), rules.now_s))
        tally.leftover_files += len(found)
        tally.leftover_bytes += sum(size for size, _ in found)
        tally.leftovers += found
    return below


def _entries(
    entries: Iterable[os.DirEntry[str]], pending: Pending, rules: Rules, tally: Tally, below: list[Pending]
) -> None:
    before = tally.files, tally.size_bytes, tally.small
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as error:
            _note(tally, entry.path, error)
            continue
        kind, links = status.st_mode & _KIND, status.st_nlink
        if kind == stat.S_IFREG:
            share = 1 if links <= 1 else 1 / links
            _file(entry, status, rules, tally)
        elif kind == stat.S_IFDIR:
            if status.st_dev != pending.device:
                continue
            share = 1
            tally.directories += 1
            below.append(Pending(entry.path, pending.root, pending.device))
        else:
            share = 1 / links
            tally.others += 1
        tally.inodes += share
        tally.used_bytes += status.st_blocks * _BLOCK_BYTES * share
    _place(tally, pending, [tally.files - before[0], tally.size_bytes - before[1], tally.small - before[2]])


def _file(entry: os.DirEntry[str], status: os.stat_result, rules: Rules, tally: Tally) -> None:
    """Count one file; called for each of millions, so it looks nothing up twice."""
    size, clock, name = status.st_size, rules.clock, entry.name
    bits = size.bit_length()
    small = bits <= SMALL_CLASS
    tally.files += 1
    tally.size_bytes += size
    tally.small += small
    tally.sizes[bits if bits < SIZE_CLASSES else -1] += 1
    used_s = status.st_atime if clock == "access" else status.st_mtime
    if clock == "newest":
        used_s = max(used_s, status.st_atime)
    days = int((rules.now_s - used_s) // _DAY_S)
    days = 0 if days < 0 else days if days < IDLE_DAYS else IDLE_DAYS - 1
    tally.idle[days] += 1
    tally.idle_bytes[days] += size
    row = tally.kinds.setdefault(KNOWN.get(name[name.rfind(".") + 1 :].lower(), ""), [0, 0])
    row[0] += 1
    row[1] += size
    if size >= LARGE_BYTES:
        tally.largest.append((size, entry.path))


def _place(tally: Tally, pending: Pending, row: list[int]) -> None:
    """Count a directory's files for its ancestor near the top, so that few rows tell where the files are."""
    parts = pending.path[len(pending.root) :].strip("/").split("/")
    place = "/".join([pending.root.rstrip("/"), *parts[:_PLACE_DEPTH]]).rstrip("/") or "/"
    kept = tally.places.setdefault(place, [0, 0, 0])
    for index, amount in enumerate(row):
        kept[index] += amount


def _note(tally: Tally, path: str, error: OSError) -> None:
    if isinstance(error, FileNotFoundError):  # deleted while we walked
        return
    tally.unreadable_count += 1
    if len(tally.unreadable) < _UNREADABLE_EXAMPLES:
        tally.unreadable.append(f"{path}: {error.strerror}")
