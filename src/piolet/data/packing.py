"""A directory as one squashfs image, with the checksums of what is in it: written, and read back.

The same names, content, modes, owners and times give the same bytes: the time of making is not in the image. Times are
kept, since compiled Python files are valid only for the time of their source.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import Refused, ToolError, UsageError, storage_errors
from piolet.core.files import replacing, write_text
from piolet.core.run import PIPE, Runner, SystemRunner, end
from piolet.data import digests
from piolet.tools import squashfs

CHECKSUMS = ".b3"
"""Added to the name of an image: the list of the digests of its files, for `piolet data verify` and b3sum."""

_UNPACK_TIMEOUT_S = 24 * 3600.0
_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Packed:
    """What was written: the path, how many files are in it, their bytes, and the bytes it takes."""

    path: Path
    files: int
    source_bytes: int
    packed_bytes: int


def checked_target(source: Path, target: Path) -> None:
    """Refuse a source that is no directory, a target that is there, and one that would pack itself."""
    if not source.is_dir():
        raise UsageError("not a directory", where=str(source), remedy="give the directory to pack")
    if target.exists():
        raise Refused("the target is there already", where=str(target), remedy="choose another name, or delete it")
    if target.resolve().is_relative_to(source.resolve()):
        raise Refused("the target lies in what is packed", where=str(target), remedy="write it beside the directory")


def pack_squashfs(source: Path, target: Path, runner: SystemRunner, report: Callable[[int], None]) -> Packed:
    """Pack `source` into a new image at `target`, and write the checksums of its files beside it.

    mksquashfs works while the files are hashed, so that each is read from the disk once. `report` is shown the number
    of files hashed so far.

    Raises:
        UsageError, Refused: as of checked_target.
        ToolMissing, ToolError: mksquashfs is not there, or failed; nothing is left behind.
        StorageError: a file cannot be read, or there is no space.
    """
    checked_target(source, target)
    with replacing(target) as partial:
        argv = squashfs.make_argv(source, partial)
        process = runner.start(argv, stdout=PIPE, stderr=PIPE)
        try:
            found, amount = _hashed(source, report)
            stdout, stderr = process.communicate()
        finally:
            end(process, _GRACE_S)
        if process.returncode:
            raise ToolError(argv, process.returncode, stderr, stdout=stdout)
        write_text(checksums_of(target), digests.text_of(found.items()))
    return Packed(target, len(found), amount, target.stat().st_size)


def _hashed(directory: Path, report: Callable[[int], None] = lambda _: None) -> tuple[dict[str, str], int]:
    """Return the digests of the files below `directory`, in order of their names, and the bytes of all."""
    found, amount = {}, 0
    for name in digests.files_below(directory):
        found[name], size_bytes = digests.measured(f"{directory}/{name}")
        amount += size_bytes
        report(len(found))
    return found, amount


def checksums_of(image: Path) -> Path:
    """Return where the checksums of an image's files are."""
    return image.with_name(image.name + CHECKSUMS)


def read_checksums(path: Path) -> Mapping[str, str]:
    """Read a list of checksums; StorageError or ParseError if it is not there or torn."""
    with storage_errors(path, "read the checksums"):
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    return digests.parse(text, str(path))


def verify_squashfs(image: Path, runner: Runner) -> tuple[int, list[str]]:
    """Unpack `image` beside itself, and return the number of its files and what differs from its checksums.

    Raises:
        StorageError, ParseError: the image or its checksums cannot be read, or are torn.
        ToolMissing, ToolError: unsquashfs is not there, or found the image damaged.
    """
    expected = read_checksums(checksums_of(image))
    squashfs.superblock(image)
    with (
        storage_errors(image.parent, "unpack"),
        tempfile.TemporaryDirectory(dir=image.parent, prefix=".verify-") as work,
    ):
        unpacked = Path(work) / "root"
        runner.run(squashfs.unpack_argv(image, unpacked), timeout=_UNPACK_TIMEOUT_S)
        found, _ = _hashed(unpacked)
    return len(found), digests.differences(expected, found)
