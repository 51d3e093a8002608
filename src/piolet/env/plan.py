"""The container plan: everything a node needs to build the container, and its form as text.

The text is flat, versioned and ends with a checksum, so that C reads it strictly and a torn file is noticed:
docs/reference/plan-format.md. It is named after its content, so writing it twice gives one file.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from piolet.core.files import write_text
from piolet.core.settings import Settings
from piolet.env.lines import Line
from piolet.env.model import Image, ImageKind, Mount, MountKind, Text, Variable
from piolet.logbook import layout

VERSION = 1
EMPTY_FIELD = "%"
_PLAIN = frozenset(range(0x21, 0x7F)) - {ord("%")}
_DIGEST_CHARS = 32


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """A container, fully resolved. `workdir` is empty for the caller's directory.

    `overlay` is empty, or says how much may be written in memory (``size=2g``) or where else (``directory=/scratch``).

    `origins` says where each scalar (image, writable, workdir) comes from; the other values carry their own.
    """

    name: str
    image: Image
    writable: bool = True
    workdir: str = ""
    mounts: tuple[Mount, ...] = ()
    variables: tuple[Variable, ...] = ()
    texts: tuple[Text, ...] = ()
    lines: tuple[Line, ...] = ()
    overlay: str = ""
    origins: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return the plan as the text that C reads."""
        return signed(self._lines())

    @property
    def digest(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.text().encode("ascii")).hexdigest()

    @property
    def file_name(self) -> str:
        """The name of the plan's file, made of its content."""
        return f"{self.digest[:_DIGEST_CHARS]}.plan"

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (key, value, origin) of every value, for people."""
        rows = [
            ("image", self.image.shown(), self.image.origin),
            ("writable", str(self.writable).lower(), self.origins.get("writable", "default")),
            *([("overlay", self.overlay, self.origins.get("overlay", "default"))] if self.overlay else []),
            ("workdir", self.workdir or "(the caller's)", self.origins.get("workdir", "default")),
        ]
        rows += [(f"mounts[{index}]", mount.shown(), mount.origin) for index, mount in enumerate(self.mounts)]
        rows += [
            (f"env.{variable.name}", "(unset)" if variable.value is None else variable.value, variable.origin)
            for variable in self.variables
        ]
        rows += [(f"{line.key}[{index}]", line.shown(), line.origin) for index, line in enumerate(self.lines)]
        rows += [(f"text.{text.target}", text.text.rstrip("\n"), text.origin) for text in self.texts]
        return rows

    def _lines(self) -> Iterator[tuple[str, ...]]:
        yield "piolet-plan", str(VERSION)
        yield "name", escaped(self.name)
        yield _image_line(self.image)
        yield "root", "writable" if self.writable else "readonly", *([escaped(self.overlay)] if self.overlay else [])
        for mount in self.mounts:
            yield _mount_line(mount)
        for text in self.texts:
            yield "prepend", escaped(text.target), escaped(text.text)
        yield from map(_variable_line, self.variables)
        yield from map(_line, self.lines)
        if self.workdir:
            yield "workdir", escaped(self.workdir)


def part_text(source: Path, mounts: Iterable[Mount], variables: Iterable[Variable], lines: Iterable[Line]) -> str:
    """Return the text of what plans on this node include, made from the file `source`."""
    status = source.stat()
    head = ("piolet-plan", str(VERSION)), ("source", escaped(str(source)), str(status.st_size), str(status.st_mtime_ns))
    return signed((*head, *map(_mount_line, mounts), *map(_variable_line, variables), *map(_line, lines)))


def signed(lines: Iterable[tuple[str, ...]]) -> str:
    """Return lines as text with their checksum."""
    body = "".join(" ".join(fields) + "\n" for fields in lines)
    return f"{body}end {zlib.crc32(body.encode('ascii')):08x}\n"


def escaped(text: str) -> str:
    """Return a field: bytes other than printable ASCII, the space and `%` become %XX; an empty field is `%`."""
    content = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in content) or EMPTY_FIELD


def plan_directory(settings: Settings, environ: Mapping[str, str]) -> Path:
    """Return where plans are kept: below the root of the logbooks, which nodes share."""
    return layout.root(settings, environ) / "plans"


def write_plan(plan: ContainerPlan, directory: Path) -> Path:
    """Write the plan below `directory` under a name made of its content, readable by the user only; return its path.

    Raises:
        StorageError: the directory cannot be written.
    """
    path = directory / plan.file_name
    if not (path.is_file() and path.read_bytes() == plan.text().encode("ascii")):
        write_text(path, plan.text(), mode=0o600)
    return path


def _mount_line(mount: Mount) -> tuple[str, ...]:
    paths = [escaped(path) for path in (mount.source, mount.target) if path]
    line = ("mount", mount.kind.value, *paths, ",".join(mount.flags) or "-")
    return (*line, str(mount.size_bytes), str(mount.mtime_ns)) if mount.kind is MountKind.SQUASHFS else line


def _variable_line(variable: Variable) -> tuple[str, ...]:
    if variable.value is None:
        return "unset", variable.name
    return "set", variable.name, escaped(variable.value)


def _line(line: Line) -> tuple[str, ...]:
    return line.key, *map(escaped, line.words[1:])


def _image_line(image: Image) -> tuple[str, ...]:
    line = ("image", image.kind.value, escaped(str(image.path)))
    if image.kind is not ImageKind.SQUASHFS:
        return line
    return (*line, str(image.size_bytes), str(image.mtime_ns))
