"""Striping a directory of Lustre: what fits the files, the commands that do it, doing it, and reading it back.

A layout is that of files that are created later: the directory comes first, and what lies in it is migrated.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import Refused, storage_errors
from piolet.core.run import Runner
from piolet.data.advice import STRIPING, UNSTRIPED_BYTES
from piolet.tools import lustre, mountinfo
from piolet.tools.lustre import Component, Layout
from piolet.tools.mountinfo import Mount

SMALL_BYTES = 4 << 20
ONE_STRIPE: Layout = (Component(None, 1),)
"""For directories of small files: more stripes cost an object each, and no file is long enough for two."""

QUIET_S = 3600.0
"""What changed within the last hour may be written to, and is not migrated: `lfs migrate` would lose writes or fail."""

_TIMEOUT_S = 60.0
_MIGRATE_TIMEOUT_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Contents:
    """What lies below a directory: how many files, how many of them are small, and the large ones that are quiet."""

    files: int = 0
    small: int = 0
    large: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with `directory`: make it, set the layout, migrate files. `now` is its layout; None: it is new."""

    directory: Path
    now: Layout | None
    wanted: Layout
    reason: str
    migrate: tuple[Path, ...] = ()

    @property
    def sets(self) -> bool:
        """Whether the layout of the directory changes."""
        return self.now is None or not same(self.now, self.wanted)

    def commands(self) -> list[list[str]]:
        """Return the commands in order; none if all is as it should be."""
        made = [["mkdir", "-p", str(self.directory)]] if self.now is None else []
        set_ = [lustre.set_argv(self.directory, self.wanted)] if self.sets else []
        return [*made, *set_, *(lustre.migrate_argv(path, self.wanted) for path in self.migrate)]


def same(one: Layout, two: Layout) -> bool:
    """Return whether two layouts have the same borders and stripes; sizes that nobody asked for may differ."""
    return [(each.end_bytes, each.stripes) for each in one] == [(each.end_bytes, each.stripes) for each in two]


def look(directory: Path, now_s: float) -> Contents:
    """Return what lies below `directory`; nothing if it is not there. Links are not followed."""
    files = small = 0
    large = []
    for above, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):  # deleted meanwhile
                status = Path(above, name).lstat()
                files += 1
                small += status.st_size < SMALL_BYTES
                if status.st_size >= UNSTRIPED_BYTES and status.st_mtime < now_s - QUIET_S:
                    large.append(Path(above, name))
    return Contents(files, small, tuple(sorted(large)))


def plan(directory: Path, contents: Contents, now: Layout | None, layouts: Sequence[tuple[Path, Layout]] = ()) -> Plan:
    """Return what to do; `layouts` are those of the large files. Pure."""
    if contents.files and contents.small == contents.files:
        return Plan(directory, now, ONE_STRIPE, f"all {contents.files} files are under 4 MiB: one stripe each")
    narrow = tuple(path for path, layout in layouts if layout and layout[-1].stripes == 1)
    reason = "small files on one OST, large ones over up to 32, growing with the file"
    if now and any(each.stripes == -1 for each in now):
        reason += "; the stripe count -1 of now puts a part of every file on every OST of the pool"
    return Plan(directory, now, STRIPING, reason, narrow)


def prepare(directory: Path, runner: Runner, mount: Mount | None = None) -> Plan:
    """Return the plan for `directory`, which need not be there yet.

    Raises:
        Refused: it is not on Lustre.
        ToolMissing, ToolError, ParseError: lfs is not there or does not answer.
    """
    mount = mount or mountinfo.holding(directory, mountinfo.mounted())
    if mount.kind != "lustre":
        raise Refused(
            f"this is {mount.kind}, and only Lustre has stripes",
            where=str(directory),
            remedy="nothing is to be done here",
        )
    now = lustre.read_layout(directory, runner) if directory.is_dir() else None
    contents = look(directory, time.time())
    return plan(directory, contents, now, [(path, lustre.read_layout(path, runner)) for path in contents.large])


def apply(chosen: Plan, runner: Runner, *, migrate: bool) -> Iterator[list[str]]:
    """Do what the plan says and yield each command when it is done; files are migrated only if `migrate`.

    Raises:
        Refused: the file system took another layout than was asked for, which is found by reading it back.
        ToolMissing, ToolError, ToolTimeout, ParseError, StorageError: a command failed; those yielded are done.
    """
    for command in chosen.commands():
        if command[0] == "mkdir":
            with storage_errors(chosen.directory, "make the directory"):
                chosen.directory.mkdir(parents=True)
        elif command[1] == "setstripe":
            runner.run(command, timeout=_TIMEOUT_S)
            _check(chosen, runner)
        elif migrate:
            runner.run(command, timeout=_MIGRATE_TIMEOUT_S)
        else:
            continue
        yield command


def _check(chosen: Plan, runner: Runner) -> None:
    found = lustre.read_layout(chosen.directory, runner)
    if not same(found, chosen.wanted):
        raise Refused(
            "the file system has another layout than was set",
            where=str(chosen.directory),
            remedy=f"see `{' '.join(lustre.get_argv(chosen.directory))}`; the site may limit stripes or have pools",
        )
