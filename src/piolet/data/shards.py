"""A directory as WebDataset shards: tar files of samples, an index in the form of wids, and checksums.

Files of one directory whose names agree up to the first dot are one sample, and stay together. The same names and
content, shard size and seed give the same bytes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, cast

from piolet.core.errors import ParseError, UsageError, storage_errors
from piolet.core.files import read_json, write_text
from piolet.data import digests
from piolet.data.packing import Packed, checked_target, read_checksums

INDEX, CHECKSUMS = "index.json", "checksums.b3"
_BLOCK_BYTES = 512
_COPIED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: its files, relative to the source, and the bytes that they take in a tar file."""

    files: tuple[str, ...]
    tar_bytes: int


def sample_key(name: str) -> str:
    """Return what the files of a sample share: the path up to the first dot of the last part, as WebDataset does."""
    directory, slash, last = name.rpartition("/")
    return directory + slash + last.partition(".")[0]


def samples(source: Path) -> list[Sample]:
    """Return the samples of `source` in the order of their names."""
    names = sorted(digests.files_below(source), key=lambda name: (sample_key(name), name))
    return [_sample(source, tuple(group)) for _, group in groupby(names, key=sample_key)]


def _sample(source: Path, names: tuple[str, ...]) -> Sample:
    blocks = sum(1 - (source / name).stat().st_size // -_BLOCK_BYTES for name in names)
    return Sample(names, blocks * _BLOCK_BYTES)


def divided(every: Sequence[Sample], shard_bytes: int) -> Iterator[list[Sample]]:
    """Yield the samples of each shard: as many as fit, and one at least."""
    shard: list[Sample] = []
    taken = 0
    for sample in every:
        if shard and taken + sample.tar_bytes > shard_bytes:
            yield shard
            shard, taken = [], 0
        shard.append(sample)
        taken += sample.tar_bytes
    if shard:
        yield shard


def pack_shards(
    source: Path, target: Path, *, shard_bytes: int, seed: int | None, report: Callable[[int], None]
) -> Packed:
    """Write the shards of `source` into the new directory `target`; shuffled by `seed`, in order without one.

    Raises:
        UsageError, Refused: as of checked_target, or there is no file in `source`.
        StorageError: a file cannot be read, or there is no space; nothing is left behind.
    """
    checked_target(source, target)
    every = samples(source)
    if not every:
        raise UsageError("there are no files in it", where=str(source), remedy="give the directory of the samples")
    if seed is not None:
        random.Random(seed).shuffle(every)  # noqa: S311 - an order that can be had again, not a secret
    with storage_errors(target, "write the shards"):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial"))
        try:
            found, amount = _written(source, partial, list(divided(every, shard_bytes)), report)
            partial.chmod(0o755)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return Packed(target, len(found), amount, sum(each.stat().st_size for each in target.glob("*.tar")))


def _written(
    source: Path, directory: Path, parts: Sequence[Sequence[Sample]], report: Callable[[int], None]
) -> tuple[dict[str, str], int]:
    """Write shards, index and checksums; return the digests of the files, and their bytes."""
    found: dict[str, str] = {}
    amount, rows = 0, []
    for number, part in enumerate(parts):
        path = directory / f"shard-{number:06d}.tar"
        with path.open("wb") as file:
            whole = digests.Hashed(file)
            out = cast("BinaryIO", whole)  # it only writes
            with tarfile.TarFile(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, copybufsize=_COPIED_BYTES) as shard:
                for name in (name for sample in part for name in sample.files):
                    added = _added(shard, source / name, name)
                    found[name], amount = added.hexdigest(), amount + added.size_bytes
                    report(len(found))
        rows.append({"url": path.name, "nsamples": len(part), "blake3": whole.hexdigest()})
    index = {"__kind__": "wids-shard-index", "wids_version": 1, "shardlist": rows}
    write_text(directory / INDEX, json.dumps(index, indent=2) + "\n")
    write_text(directory / CHECKSUMS, digests.text_of(sorted(found.items())))
    return found, amount


def _added(shard: tarfile.TarFile, path: Path, name: str) -> digests.Hashed:
    """Add a file without owner and time, and return what went by."""
    with path.open("rb", buffering=0) as file:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = os.fstat(file.fileno()).st_size, 0o644
        hashed = digests.Hashed(file)
        shard.addfile(entry, hashed)
        return hashed


def verify_shards(directory: Path) -> tuple[int, list[str]]:
    """Read every shard, and return the number of files in them and what differs from index and checksums.

    Raises:
        StorageError, ParseError: something is not there, or is torn.
    """
    expected = read_checksums(directory / CHECKSUMS)
    try:
        listed = {row["url"]: row["blake3"] for row in read_json(directory / INDEX)["shardlist"]}
    except (KeyError, TypeError) as error:
        raise ParseError("not an index of shards", source=str(directory / INDEX)) from error
    there = {path.name: digests.of_file(path) for path in directory.glob("*.tar")}
    found: dict[str, str] = {}
    for name in sorted(there):
        found |= _read(directory / name)
    return len(found), digests.differences(listed, there) + digests.differences(expected, found)


def _read(path: Path) -> dict[str, str]:
    """Return the digests of the files in a shard; of one that is torn, those of the files before."""
    found = {}
    with storage_errors(path, "read"):
        try:
            with tarfile.open(path) as shard:
                for entry in shard:
                    content = shard.extractfile(entry)
                    if content:
                        found[entry.name] = digests.Hashed(content).digest()  # type: ignore[arg-type] # it only reads
        except tarfile.TarError:
            return found
    return found
