"""The nouns of a container plan: image, mounts, variables, files."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from piolet.env.store import Stored


class ImageKind(StrEnum):
    """What the root of the container is made from."""

    SQUASHFS = "squashfs"
    DIRECTORY = "directory"
    REGISTRY = "registry"  # a name whose image is not in the store yet: a node refuses it


@dataclass(frozen=True, slots=True)
class Image:
    """The root file system. Size and time identify a squashfs file: a node refuses it when they differ.

    `stored` is what the store knows of an image from a registry.
    """

    kind: ImageKind
    path: Path
    origin: str
    size_bytes: int = 0
    mtime_ns: int = 0
    stored: Stored | None = None

    def shown(self) -> str:
        """Return the image as people know it: its path, or its name and digest."""
        if self.stored and self.stored.name.endswith(self.stored.digest):
            return self.stored.name
        if self.stored:
            return f"{self.stored.name} ({self.stored.digest})"
        return f"{self.path} (not in the store)" if self.kind is ImageKind.REGISTRY else str(self.path)


class MountKind(StrEnum):
    """A tree of the host, an empty file system in memory, or the content of a squashfs file."""

    BIND = "bind"
    TMPFS = "tmpfs"
    SQUASHFS = "squashfs"


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount below the root; `source` is empty for a tmpfs. Flags are those of docs/reference/plan-format.md.

    Size and time identify a squashfs file, as those of an image do.
    """

    kind: MountKind
    source: str
    target: str
    flags: tuple[str, ...]
    origin: str
    size_bytes: int = 0
    mtime_ns: int = 0

    def shown(self) -> str:
        """Return the mount as an EDF writes it."""
        flags = "+".join(("sqsh", *self.flags) if self.kind is MountKind.SQUASHFS else self.flags)
        source = self.source or self.kind.value
        return ":".join(part for part in (source, self.target, flags) if part)


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the program; None unsets it."""

    name: str
    value: str | None
    origin: str


@dataclass(frozen=True, slots=True)
class Text:
    """Text that stands before what the image has in the file `target`."""

    target: str
    text: str
    origin: str
