"""The layers of an image as one tree, written as one tar stream; nothing is ever unpacked.

Layers are applied as an overlay file system shows them: later ones cover earlier ones, ``.wh.NAME`` hides NAME and
``.wh..wh..opq`` all that lower layers have in a directory. Hard links stay hard links, also when the name that has
the content is covered. Device nodes are left out: they would be inert.
"""

from __future__ import annotations

import copy
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from piolet.core.errors import ParseError

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_BLOCK_BYTES = tarfile.BLOCKSIZE
_COPY_BYTES = 1 << 20


@dataclass(slots=True, eq=False)
class _File:
    """Content that one or more names have; `member` says where it stands in the layer."""

    layer: int
    member: tarfile.TarInfo


@dataclass(slots=True, eq=False)
class _Directory:
    member: tarfile.TarInfo | None = None
    children: dict[str, _File | _Directory] = field(default_factory=dict)


def flatten(layers: Sequence[Path], out: BinaryIO) -> None:
    """Write the tree that the uncompressed `layers`, lowest first, make to `out` as a tar archive.

    Raises:
        ParseError: a layer is not a tar archive, or a name in it leads out of the tree.
    """
    root = _Directory()
    files = [layer.open("rb") for layer in layers]
    try:
        for index, path in enumerate(layers):
            _apply(root, index, _members(path), str(path))
        _write(root, files, out)
    finally:
        for file in files:
            file.close()


def _members(path: Path) -> list[tarfile.TarInfo]:
    try:
        with tarfile.open(path, "r:") as archive:
            return archive.getmembers()
    except tarfile.TarError as error:
        raise ParseError(f"a layer is not a tar archive: {error}", source=str(path)) from error


def _apply(root: _Directory, layer: int, members: Sequence[tarfile.TarInfo], source: str) -> None:
    """Hide first, for a layer hides only what lower layers have; then add."""
    named = [(_parts(member.name, source), member) for member in members]
    for parts, _ in named:
        if parts and parts[-1].startswith(_WHITEOUT):
            _hide(root, parts)
    for parts, member in named:
        if not parts:
            root.member = member
        elif not parts[-1].startswith(_WHITEOUT) and not member.isdev():
            _add(root, layer, parts, member, source)


def _parts(name: str, source: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise ParseError("a name in a layer leads out of the image", source=source, text=name)
    return parts


def _hide(root: _Directory, parts: list[str]) -> None:
    parent: _File | _Directory | None = root
    for part in parts[:-1]:
        parent = parent.children.get(part) if isinstance(parent, _Directory) else None
    if isinstance(parent, _Directory):
        if parts[-1] == _OPAQUE:
            parent.children.clear()
        else:
            parent.children.pop(parts[-1].removeprefix(_WHITEOUT), None)


def _add(root: _Directory, layer: int, parts: list[str], member: tarfile.TarInfo, source: str) -> None:
    parent = root
    for part in parts[:-1]:
        below = parent.children.get(part)
        if not isinstance(below, _Directory):
            below = parent.children[part] = _Directory()
        parent = below
    there = parent.children.get(parts[-1])
    if member.isdir():
        if isinstance(there, _Directory):
            there.member = member
        else:
            parent.children[parts[-1]] = _Directory(member)
    elif member.islnk():
        parent.children[parts[-1]] = _linked(root, member, source)
    else:
        parent.children[parts[-1]] = _File(layer, member)


def _linked(root: _Directory, member: tarfile.TarInfo, source: str) -> _File:
    found: _File | _Directory | None = root
    for part in _parts(member.linkname, source):
        found = found.children.get(part) if isinstance(found, _Directory) else None
    if not isinstance(found, _File):
        raise ParseError("a hard link in a layer leads nowhere", source=source, text=member.name)
    return found


def _walk(directory: _Directory, prefix: str) -> Iterator[tuple[str, _File | _Directory]]:
    for name, node in sorted(directory.children.items()):
        yield prefix + name, node
        if isinstance(node, _Directory):
            yield from _walk(node, f"{prefix}{name}/")


def _write(root: _Directory, layers: Sequence[BinaryIO], out: BinaryIO) -> None:
    """Directories first, so that all have their own permissions; then files in the order in which they are stored."""
    names: dict[_File, list[str]] = {}
    for name, node in _walk(root, ""):
        if isinstance(node, _File):
            names.setdefault(node, []).append(name)
        else:
            out.write(_header(node.member or _plain_directory(), name))
    for file in sorted(names, key=lambda file: (file.layer, file.member.offset)):
        first, *others = names[file]
        _write_file(file.member, first, layers[file.layer], out)
        out.writelines(_header(file.member, other, link=first) for other in others)
    out.write(bytes(2 * _BLOCK_BYTES))


def _plain_directory() -> tarfile.TarInfo:
    member = tarfile.TarInfo()
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    return member


def _header(member: tarfile.TarInfo, name: str, *, link: str | None = None) -> bytes:
    """Return the header of `member` under another name, as a hard link to `link` if that is given."""
    changed = copy.copy(member)
    changed.name = name
    changed.pax_headers = {
        key: value for key, value in member.pax_headers.items() if key not in {"path", "linkpath", "size"}
    }
    if link is not None:
        changed.type, changed.linkname, changed.size, changed.pax_headers = tarfile.LNKTYPE, link, 0, {}
    return changed.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _write_file(member: tarfile.TarInfo, name: str, layer: BinaryIO, out: BinaryIO) -> None:
    """Copy header and content as they are, whatever attributes the header has, if the name is the same."""
    if member.issparse():
        raise ParseError("a layer has a sparse file, which is not supported", source=layer.name, text=member.name)
    size = -(-member.size // _BLOCK_BYTES) * _BLOCK_BYTES if member.isreg() else 0
    begin = member.offset
    if member.name != name:
        out.write(_header(member, name))
        begin = member.offset_data
    layer.seek(begin)
    _copy(layer, out, member.offset_data - begin + size)


def _copy(source: BinaryIO, out: BinaryIO, size: int) -> None:
    while size:
        part = source.read(min(size, _COPY_BYTES))
        if not part:
            raise ParseError("a layer is torn", source=source.name)
        out.write(part)
        size -= len(part)
