"""Quotas of a user on a file system: what `quota` (ext4, XFS, NFS) and `lfs quota` (Lustre) print.

Both print the same eight columns, in blocks of 1 KiB. Their forms are those of quota(1) and lfs-quota(1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from piolet.core.errors import ParseError, ToolError
from piolet.core.run import Runner
from piolet.tools.mountinfo import Mount

_TIMEOUT_S = 30.0
_BLOCK_BYTES = 1024
_NUMBER = re.compile(r"\[?(\d+)\]?\*?")
_COLUMNS = 8
_NO_QUOTAS = "has no quota enabled"
LINUX_KINDS = frozenset({"ext2", "ext3", "ext4", "xfs", "nfs", "nfs4"})
"""File systems whose quotas quota(1) tells."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Used and allowed, in bytes or in inodes; None is no limit."""

    used: int
    soft: int | None = None
    hard: int | None = None

    @property
    def limit(self) -> int | None:
        """The limit that is met first."""
        given = [each for each in (self.soft, self.hard) if each]
        return min(given, default=None)


@dataclass(frozen=True, slots=True)
class Quota:
    """What a user has and may have; `source` says who told."""

    source: str
    space: Usage
    inodes: Usage


def argv(mount: Mount, user: str) -> list[str]:
    """Return the command that tells the quota of `user` on `mount`; empty where no tool does."""
    if mount.kind == "lustre":
        return ["lfs", "quota", "-q", "-u", user, mount.path]
    if mount.kind in LINUX_KINDS:
        form = ("--raw-grace", "--no-wrap", "--hide-device", "--show-mntpoint")
        return ["quota", *form, f"--filesystem={mount.path}", user]
    return []


def parse(text: str, source: str) -> Quota | None:
    """Parse what either tool prints of one file system; None if it prints none, which is: no limit is set.

    The last eight words are used, soft, hard and grace, in KiB and then in inodes. An asterisk marks what is over its
    limit, brackets a sum in which a server is missing.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("Disk quotas", "Filesystem"))]
    words = " ".join(lines).split()
    if not words or words[-1] == "none":
        return None
    columns = words[-_COLUMNS:]
    numbers = [match[1] for match in map(_NUMBER.fullmatch, columns[:3] + columns[4:7]) if match]
    if len(words) <= _COLUMNS or len(numbers) < len("uslusl"):
        raise ParseError("not a line of quotas", source=source, text=text)
    used, soft, hard, files, soft_files, hard_files = map(int, numbers)
    space = Usage(used * _BLOCK_BYTES, soft * _BLOCK_BYTES or None, hard * _BLOCK_BYTES or None)
    return Quota(source, space, Usage(files, soft_files or None, hard_files or None))


def of(mount: Mount, user: str, runner: Runner) -> Quota | None:
    """Return the quota of `user` on `mount`; None where no limit is set, or no tool tells of any.

    Raises:
        ToolMissing: the tool of this file system is not installed, so nothing is known.
        ToolTimeout, ToolError: it did not answer, or failed.
        ParseError: it printed something else.
    """
    asked = argv(mount, user)
    if not asked:
        return None
    result = runner.run(asked, timeout=_TIMEOUT_S, ok=(0, 1))
    # quota(1) ends with 1 where a limit is exceeded, and prints it all the same; also where there are no quotas.
    if result.rc and not result.stdout and _NO_QUOTAS not in result.stderr:
        raise ToolError(asked, result.rc, result.stderr)
    return parse(result.stdout, " ".join(asked[:2]))
