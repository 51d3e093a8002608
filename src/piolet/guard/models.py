"""Scanning model files: what each is by its content, and what loading it would do. Nothing is loaded or executed."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import re
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from piolet.core.errors import ConfigError, UsageError, storage_errors
from piolet.guard import graphs, rules, tensors
from piolet.guard.finding import Place, Risk, Scan, joined, risk
from piolet.guard.graphs import Seen
from piolet.guard.pickles import BrokenPickle, Import, imports
from piolet.guard.policy import ModelLimits
from piolet.tools import safetensors
from piolet.tools.safetensors import Unsound

_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".dill", ".bin", ".p", ".th")
_INERT = frozenset(
    f".{name}"
    for names in (
        "txt md rst py yaml yml toml csv tsv html pdf png jpg jpeg gif svg jsonl lock sig sha256",
        "model spm vocab tiktoken gitattributes gitignore",  # of tokenizers, and of git
    )
    for name in names.split()
)
_STRANGE = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"\x7fELF": "a program",
    b"MZ": "a Windows program",
}
_UNPACKERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_READERS: dict[str, Callable[[IO[bytes], int], Iterator[Seen]]] = {
    ".onnx": graphs.onnx,
    ".pb": graphs.tensorflow,
    ".json": graphs.settings,
    ".jinja": graphs.template_file,
    ".jinja2": graphs.template_file,
}
_MAGICAL = frozenset({".gguf", ".h5", ".hdf5", ".keras", ".npy", ".npz"})
_HEAD_BYTES = 512
_SMALL_BYTES = 1 << 20
_COPY_BYTES = 1 << 20
_SPOOL_BYTES = 32 << 20
_ENCRYPTED = 1
_LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_UNREADABLE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, struct.error),
    *(EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError, OSError),
)
"""What the standard library raises over files that are not what they say. OSError is what bz2 calls bad data."""
_MORE_PICKLES = 8
"""A torch file of before 1.6 holds five, one after the other."""


class Bomb(Exception):  # noqa: N818 - the state of the file
    """It goes beyond a limit; the message says which."""


@dataclass(frozen=True, slots=True)
class Item:
    """A file, or a member of an archive: a seekable stream, its size, its name, where it is, and how deep."""

    stream: IO[bytes]
    size_bytes: int
    name: str
    place: Place
    limits: ModelLimits
    depth: int = 0

    def member(self, stream: IO[bytes], size_bytes: int, name: str) -> Item:
        """Return an item within this one; Bomb if archives are nested too deeply."""
        if self.depth >= self.limits.max_depth:
            raise Bomb(f"archives within archives, over {self.limits.max_depth} deep")
        inside = f"{self.place.inside}/{name}" if self.place.inside else name
        place = Place(self.place.path, inside=inside[:200])
        return Item(stream, size_bytes, name.lower(), place, self.limits, self.depth + 1)


def scan_models(paths: Iterable[Path], limits: ModelLimits, digests: Path | None = None) -> Scan:
    """Scan model files; a directory means all its files, without following links.

    `digests` is a file of sha256sum(1): every file that it names must be there and be the one, and no other may be.

    Raises:
        UsageError: a path does not exist.
        StorageError: a file cannot be read.
        ConfigError: `digests` is not in the form of sha256sum.
    """
    files = list(_files(paths))
    scans = [scan_model(path, limits) for path in files]
    if digests:
        scans.append(Scan("model", 0, 0, tuple(_compared(files, digests))))
    return joined("model", scans)


def scan_model(path: Path, limits: ModelLimits) -> Scan:
    """Scan one file."""
    with storage_errors(path, "read"), path.open("rb") as stream:
        size_bytes = path.stat().st_size
        item = Item(stream, size_bytes, path.name.lower(), Place(str(path)), limits)
        return Scan("model", 1, size_bytes, tuple(sorted(set(risks_of(item)))))


def risks_of(item: Item) -> Iterator[Risk]:
    """Yield the risks of an item; whatever its parser cannot take is a risk too."""
    try:
        yield from _by_content(item)
    except Unsound as error:
        yield risk(rules.BROKEN, item.place, str(error))
    except Bomb as error:
        yield risk(rules.BOMB, item.place, str(error))
    except _UNREADABLE as error:
        yield risk(rules.BROKEN, item.place, f"{type(error).__name__}: {str(error)[:80]}")


def _by_content(item: Item) -> Iterator[Risk]:
    head = item.stream.read(_HEAD_BYTES)
    item.stream.seek(0)
    for magic, what in _STRANGE.items():
        if head.startswith(magic):
            yield risk(rules.BROKEN, item.place, f"{what}, not a model")
            return
    if head.startswith(b"PK\x03\x04"):
        yield from _zip(item)
    elif head[257:262] == b"ustar":
        yield from _tar(item)
    elif head.startswith((*_UNPACKERS, *_ZLIB)):
        yield from _compressed(item, head)
    elif head.startswith(b"\x93NUMPY"):
        if tensors.numpy_objects(item.stream):
            yield from _pickle(item)
    elif _is_pickle(item, head):
        yield from _pickle(item)
    else:
        for rule, reason in _described(item, head):
            yield risk(rule, item.place, reason)


def _described(item: Item, head: bytes) -> Iterator[Seen]:
    """Yield what is seen in formats without pickles: those with a magic number, then those known by their name."""
    suffix = PurePosixPath(item.name).suffix
    if suffix == ".safetensors":
        safetensors.tensor_names(item.stream, item.size_bytes)
    elif head.startswith(b"GGUF"):
        for key, text in tensors.check_gguf(item.stream, item.size_bytes).items():
            yield from graphs.template(text) if "chat_template" in key else ()
    elif head.startswith(b"\x89HDF\r\n\x1a\n"):
        yield from graphs.keras_bytes(item.stream)
    elif suffix in _READERS:
        yield from _READERS[suffix](item.stream, item.size_bytes)
    elif suffix in _MAGICAL:
        raise Unsound(f"it does not begin as a {suffix} file does")
    elif suffix not in _INERT and item.depth == 0 and item.size_bytes:
        yield rules.UNCHECKED, f"no check for {suffix or 'a file without a suffix'}"


def _is_pickle(item: Item, head: bytes) -> bool:
    """Return whether it is one by its first bytes (protocol 2 and later), or else by its name."""
    begins = len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5  # noqa: PLR2004 - PROTO and its versions
    return begins or item.name.endswith(_PICKLES)


def _pickle(item: Item) -> Iterator[Risk]:
    """Yield what the pickles of a stream name. What follows the first one may be raw data, and need not be a pickle.

    A .bin file is anything, so one that does not begin as a pickle does may be none.
    """
    begin = item.stream.tell()
    certain = not item.name.endswith(".bin") or item.stream.read(1) == b"\x80"
    item.stream.seek(begin)
    for count in range(_MORE_PICKLES):
        named, broken = _followed(item.stream)
        for each in sorted(named, key=lambda found: found.name):
            yield from _named(item, each, doubtful=bool(broken) and not (certain and not count))
        if broken and not count:
            rule = rules.BROKEN if certain else rules.UNCHECKED
            yield risk(rule, item.place, f"a pickle that cannot be followed: {broken}")
        if broken or not item.stream.read(1):
            return
        item.stream.seek(-1, os.SEEK_CUR)


def _followed(stream: IO[bytes]) -> tuple[set[Import], str]:
    """Return what one pickle names, and why it could not be followed to its end."""
    named: set[Import] = set()
    try:
        for each in imports(stream):
            named.add(each)
    except BrokenPickle as error:
        return named, str(error)
    return named, ""


def _named(item: Item, found: Import, *, doubtful: bool) -> Iterator[Risk]:
    """Judge an import; of `doubtful` ones, which may be raw data read as opcodes, only the known bad count."""
    if found.allowed(item.limits.imports):
        return
    if found.dangerous:
        yield risk(rules.CODE, item.place, f"it imports {found.name[:120]}")
    elif not doubtful:
        yield risk(rules.UNLISTED, item.place, f"it imports {found.name[:120]}")


def _zip(item: Item) -> Iterator[Risk]:
    """Scan every member of a zip archive: a torch file, .npz, .keras, or archives in archives."""
    with zipfile.ZipFile(item.stream) as archive:
        entries = archive.infolist()
        _check_sizes(item, sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries))
        names = [entry.filename for entry in entries]
        if len(set(names)) != len(names):
            yield risk(rules.BROKEN, item.place, "a zip archive with two members of one name")
        for entry in entries:
            inner = item.member(item.stream, entry.file_size, entry.filename)
            trouble = _zip_trouble(item.stream, entry)
            if trouble:
                yield risk(rules.BROKEN, inner.place, trouble)
            elif PurePosixPath(entry.filename).is_absolute() or ".." in PurePosixPath(entry.filename).parts:
                yield risk(rules.OUTSIDE, inner.place, "a member with a path outside of the archive")
            elif not entry.is_dir():
                with archive.open(entry) as stream:
                    yield from risks_of(replace(inner, stream=stream))


def _zip_trouble(stream: IO[bytes], entry: zipfile.ZipInfo) -> str:
    """Say where the directory of an archive and a member's own header differ: readers differ in whom they believe."""
    if entry.flag_bits & _ENCRYPTED:
        return "a member is encrypted, or says so"
    stream.seek(entry.header_offset)
    fields = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
    name = stream.read(fields[9])
    if fields[0] != b"PK\x03\x04" or name not in (_name(entry, "utf-8"), _name(entry, "cp437")):
        return f"its own header names it {name[:80]!r}"
    return ""


def _name(entry: zipfile.ZipInfo, encoding: str) -> bytes:
    return entry.orig_filename.encode(encoding, "replace")


def _tar(item: Item) -> Iterator[Risk]:
    with tarfile.open(fileobj=item.stream, mode="r:") as archive:
        for entry in archive:
            inner = item.member(item.stream, entry.size, entry.name)
            _check_sizes(inner, entry.size, item.size_bytes)
            path = PurePosixPath(entry.name)
            target = PurePosixPath(entry.linkname)
            if any(each.is_absolute() or ".." in each.parts for each in (path, target)):
                yield risk(rules.OUTSIDE, inner.place, "a member or link with a path outside of the archive")
            elif entry.isfile() and (stream := archive.extractfile(entry)):
                yield from risks_of(replace(inner, stream=stream))


def _compressed(item: Item, head: bytes) -> Iterator[Risk]:
    """Unpack a compressed file into a temporary one, as far as the limits allow, and scan that."""
    opened = next((opener for magic, opener in _UNPACKERS.items() if head.startswith(magic)), None)
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as unpacked:
        for chunk in _chunks(item.stream, opened):
            unpacked.write(chunk)
            _check_sizes(item, unpacked.tell(), item.size_bytes)
        size_bytes = unpacked.tell()
        unpacked.seek(0)
        name = item.name.removesuffix(".gz").removesuffix(".bz2").removesuffix(".xz").removesuffix(".z")
        yield from risks_of(item.member(unpacked, size_bytes, name))


def _chunks(stream: IO[bytes], opened: Callable[[IO[bytes]], Any] | None) -> Iterator[bytes]:
    if opened:
        with opened(stream) as unpacked:
            while chunk := unpacked.read(_COPY_BYTES):
                yield chunk
        return
    inflater = zlib.decompressobj()
    while chunk := inflater.unconsumed_tail or stream.read(_COPY_BYTES):
        yield inflater.decompress(chunk, _COPY_BYTES)


def _check_sizes(item: Item, unpacked_bytes: int, packed_bytes: int) -> None:
    """Raise Bomb if something unpacks to more than the limits allow; what is small may shrink as it likes."""
    if unpacked_bytes > item.limits.max_bytes:
        raise Bomb(f"over {item.limits.max_bytes} bytes once unpacked")
    if unpacked_bytes > _SMALL_BYTES and unpacked_bytes > item.limits.max_ratio * packed_bytes:
        raise Bomb(f"unpacks to over {item.limits.max_ratio:g} times its size")


def _compared(files: Iterable[Path], digests: Path) -> Iterator[Risk]:
    """Yield each file that is missing, is another, or is not named by the manifest; paths are relative to it."""
    wanted = _manifest(digests)
    present = {path.resolve(): path for path in files if path.resolve() != digests.resolve()}
    for path in wanted.keys() - present.keys():
        yield risk(rules.DIGEST, Place(str(path)), "it is named by the manifest, and not among what was scanned")
    for resolved, path in present.items():
        if resolved not in wanted:
            yield risk(rules.DIGEST, Place(str(path)), "the manifest does not name it")
        elif _sha256(path) != wanted[resolved]:
            yield risk(rules.DIGEST, Place(str(path)), "its SHA-256 is not that of the manifest")


def _manifest(digests: Path) -> dict[Path, str]:
    with storage_errors(digests, "read"):
        lines = digests.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    wanted = {}
    for number, line in enumerate(lines, 1):
        digest, _, name = line.partition(" ")
        if not re.fullmatch("[0-9a-f]{64}", digest) or not name[1:]:
            remedy = "write it with: sha256sum FILE... > MANIFEST"
            raise ConfigError("not a line of sha256sum", path=digests, line=number, remedy=remedy)
        wanted[(digests.parent / name[1:]).resolve()] = digest
    return wanted


def _sha256(path: Path) -> str:
    with storage_errors(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            for directory, names, files in os.walk(path):
                names.sort()
                yield from (found for name in sorted(files) if (found := Path(directory, name)).is_file())
        elif path.is_file():
            yield path
        else:
            raise UsageError("no such file", where=str(path), remedy="check the name; nothing was scanned")
