"""/proc/self/mountinfo: which file system a path is on. Source: proc(5)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import storage_errors

_OCTAL = re.compile(r"\\([0-7]{3})")
_MOUNTINFO = "/proc/self/mountinfo"
_MOUNT_POINT, _OPTIONS, _DEVICE = 4, 5, 2
_LEAST_FIELDS = 6


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted file system; `device` is its ``major:minor``, `options` are those of the mount."""

    path: str
    kind: str
    source: str = ""
    device: str = ""
    options: tuple[str, ...] = ()

    @property
    def keeps_access_times(self) -> bool:
        """Whether reading a file is noted in its access time (with relatime about once a day)."""
        return "noatime" not in self.options

    @property
    def in_memory(self) -> bool:
        """Whether what is written there takes memory instead of a disk."""
        return self.kind in {"tmpfs", "ramfs"}


def parse(text: str) -> tuple[Mount, ...]:
    """Parse mountinfo; the type follows the lone hyphen, blanks in names are octal escapes."""
    mounts = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if separator and len(fields) >= _LEAST_FIELDS:
            source = unescaped(rest[1]) if len(rest) > 1 else ""
            options = tuple(fields[_OPTIONS].split(","))
            mounts.append(Mount(unescaped(fields[_MOUNT_POINT]), rest[0], source, fields[_DEVICE], options))
    return tuple(mounts)


def mounted() -> tuple[Mount, ...]:
    """Return what is mounted, in the order of mounting."""
    with (
        storage_errors(_MOUNTINFO, "read the mounts"),
        open(_MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file,  # noqa: PTH123 - nodes start quickly
    ):
        return parse(file.read())


def holding(path: Path, mounts: Sequence[Mount]) -> Mount:
    """Return the mount that `path` is on: the deepest, and of those over one another the last."""
    real = os.path.realpath(path)
    above = [mount for mount in mounts if real == mount.path or real.startswith(mount.path.rstrip("/") + "/")]
    return max(reversed(above), key=lambda mount: len(mount.path), default=Mount("/", "unknown"))


def unescaped(text: str) -> str:
    r"""Return a name of mountinfo or mountstats with its ``\040`` and the like undone."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text) if "\\" in text else text
