"""From counts and limits to findings with the commands to run: pure functions."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from piolet.core.nouns import Finding, Severity
from piolet.core.text import count, size
from piolet.data.formats import NEEDS_WHOLE_READ, REPLACEMENT
from piolet.data.site import SLOW, FileSystem
from piolet.data.tally import IDLE_DAYS, Tally
from piolet.tools.lustre import Component, Layout, migrate_argv, set_argv
from piolet.tools.mountinfo import Mount
from piolet.tools.quota import Quota, Usage

CROWDED_FILES, CROWDED_SHARE = 10_000, 0.5
"""A directory with as many files of which this share is small is worth packing; a PyTorch environment has 22 806."""

NEARLY_FULL = 0.8
WORTH_BYTES = 10**9
"""Formats are named from here on: below it the page cache hides how they read."""

SOON_DAYS, HOT_DAYS = 7, 2
UNSTRIPED_BYTES = 10 << 30
_MIB = 1 << 20
STRIPING: Layout = (Component(4 * _MIB, 1), Component(64 * _MIB, 4), Component(None, 32, 4 * _MIB))
"""Small files on one OST, large ones over many (a progressive file layout); from CSCS's advice for its scratch."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was learnt of one root. `quota_trouble` says why no quota is known although there may be one.

    `layouts` has the largest files whose layout was read back.
    """

    root: Path
    mount: Mount
    tally: Tally
    site: FileSystem | None = None
    quota: Quota | None = None
    quota_trouble: str = ""
    layouts: Mapping[str, Layout] = field(default_factory=dict)


def findings(facts: Facts) -> tuple[Finding, ...]:
    """Return what a user should know, the worst first."""
    found = [each for judge in _JUDGES for each in judge(facts)]
    order = list(Severity)
    return tuple(sorted(found, key=lambda each: -order.index(each.severity)))


def _quota(facts: Facts) -> Iterator[Finding]:
    quota = facts.quota or _site_quota(facts)
    if quota:
        for noun, usage, shown in (("space", quota.space, size), ("inodes", quota.inodes, count)):
            limit = usage.limit
            if limit and usage.used >= NEARLY_FULL * limit:
                over = usage.used >= limit
                yield Finding(
                    str(facts.root),
                    Severity.ERROR if over else Severity.WARNING,
                    f"{noun}: {shown(usage.used)} of {shown(limit)} ({usage.used / limit:.0%}), says {quota.source}",
                    {"used": usage.used, "limit": limit},
                    "pack small files or delete what nobody reads, before writes fail",
                )
    elif facts.quota_trouble:
        what = f"the quota is not known: {facts.quota_trouble}"
        yield Finding(str(facts.root), Severity.INFO, what, {}, "give soft_inodes and soft_bytes in the storage table")


def _site_quota(facts: Facts) -> Quota | None:
    """Return the limits of the site's table over what was counted here, which may be only a part."""
    if not facts.site or not (facts.site.soft_bytes or facts.site.soft_inodes):
        return None
    space = Usage(round(facts.tally.used_bytes), facts.site.soft_bytes)
    return Quota(
        "the storage table, of what was counted here", space, Usage(round(facts.tally.inodes), facts.site.soft_inodes)
    )


def _purge(facts: Facts) -> Iterator[Finding]:
    days = facts.site.purge_days if facts.site else None
    if not days or not facts.site:
        return
    if facts.site.purge_by != "modification" and not facts.mount.keeps_access_times:
        what = "this mount keeps no access times, so nobody can tell here what will be purged when"
        yield Finding(str(facts.root), Severity.WARNING, what, {}, "ask the site how it counts")
        return
    soon = min(max(days - SOON_DAYS, 0), IDLE_DAYS - 1)
    files, amount = sum(facts.tally.idle[soon:]), sum(facts.tally.idle_bytes[soon:])
    if files:
        oldest = max(day for day, number in enumerate(facts.tally.idle) if number)
        left = max(days - oldest, 0)
        yield Finding(
            str(facts.root),
            Severity.WARNING,
            f"purge: {count(files)} files ({size(amount)}) within {SOON_DAYS} days, the first in {left}",
            {"files": files, "bytes": amount, "first_in_days": left},
            f"copy what you need to a file system that is kept; find it: {_find_idle(facts, soon)}",
        )


def _small(facts: Facts) -> Iterator[Finding]:
    for place, (files, amount, small) in sorted(facts.tally.places.items(), key=lambda item: -item[1][2])[:3]:
        if place and small >= CROWDED_FILES and small >= CROWDED_SHARE * files:
            image = f"{place.rstrip('/')}.sqsh"
            pack = shlex.join(["piolet", "data", "pack", place, image, "--verify"])
            yield Finding(
                place,
                Severity.WARNING,
                f"{count(small)} of {count(files)} files are small ({size(amount / files)} on average)",
                {"files": files, "small": small, "bytes": amount},
                f'pack them into one file, and mount it in the EDF as "{image}:{place}:sqsh":\n{pack}',
            )


def _formats(facts: Facts) -> Iterator[Finding]:
    for ending, (files, amount) in sorted(facts.tally.kinds.items(), key=lambda item: -item[1][1]):
        if ending in NEEDS_WHOLE_READ and amount >= WORTH_BYTES:
            what = f"{count(files)} .{ending} files ({size(amount)}): {NEEDS_WHOLE_READ[ending]}"
            yield Finding(str(facts.root), Severity.INFO, what, {"bytes": amount}, REPLACEMENT[ending])


def _tier(facts: Facts) -> Iterator[Finding]:
    if not facts.site or facts.site.tier not in SLOW or not facts.mount.keeps_access_times:
        return
    hot = sum(facts.tally.idle_bytes[: HOT_DAYS + 1])
    if hot >= WORTH_BYTES and facts.tally.small >= CROWDED_SHARE * facts.tally.files:
        where = facts.site.fast or "the site's flash file system"
        what = f"{size(hot)} were used within {HOT_DAYS} days, mostly small files, and lie on {facts.site.tier}"
        yield Finding(str(facts.root), Severity.WARNING, what, {"bytes": hot}, f"move training data to {where}")


def _leftovers(facts: Facts) -> Iterator[Finding]:
    tally = facts.tally
    if tally.leftover_files:
        amount = size(tally.leftover_bytes)
        what = f"broken downloads left {count(tally.leftover_files)} files ({amount}) in Hugging Face caches"
        examples = [path for _, path in sorted(tally.leftovers, reverse=True)]
        delete = f"delete them, for example: {shlex.join(['rm', *examples[:3]])}"
        yield Finding(str(facts.root), Severity.WARNING, what, {"examples": examples}, delete)


def _striping(facts: Facts) -> Iterator[Finding]:
    narrow = [path for path, layout in facts.layouts.items() if layout and layout[-1].stripes == 1]
    if narrow:
        directory = str(Path(narrow[0]).parent)
        commands = [set_argv(Path(directory), STRIPING), *(migrate_argv(Path(path), STRIPING) for path in narrow[:3])]
        yield Finding(
            directory,
            Severity.WARNING,
            f"{count(len(narrow))} files over {size(UNSTRIPED_BYTES)} lie on one OST each, and are as fast as that",
            {"files": narrow},
            "stripe what will be written there, and migrate what is:\n" + "\n".join(map(shlex.join, commands)),
        )


def _unreadable(facts: Facts) -> Iterator[Finding]:
    if facts.tally.unreadable_count:
        what = f"{count(facts.tally.unreadable_count)} files or directories could not be read and are not counted"
        yield Finding(
            str(facts.root), Severity.WARNING, what, {"examples": facts.tally.unreadable}, "check their permissions"
        )


def _find_idle(facts: Facts, days: int) -> str:
    """Return the command that lists what was not used for `days` days; find's +n is more than n whole days."""
    test = "-mtime" if facts.site and facts.site.purge_by == "modification" else "-atime"
    return shlex.join(["find", str(facts.root), "-type", "f", test, f"+{max(days - 1, 0)}"])


_JUDGES = (_quota, _purge, _small, _formats, _tier, _leftovers, _striping, _unreadable)


def histogram(sizes: Sequence[int]) -> list[tuple[str, int]]:
    """Return the size classes that people think in, each with its number of files."""
    bits = (0, 12, 16, 20, 24, 28, 32)
    between = [(f"< {_binary(high)}", sum(sizes[low + 1 : high + 1])) for low, high in pairwise(bits)]
    return [("empty", sizes[0]), *between, (f">= {_binary(bits[-1])}", sum(sizes[bits[-1] + 1 :]))]


def _binary(bits: int) -> str:
    return f"{1 << bits % 10} {('B', 'KiB', 'MiB', 'GiB')[bits // 10]}"
