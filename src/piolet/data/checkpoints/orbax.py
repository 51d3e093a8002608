"""Orbax: a directory that gets its name when all is written, with tensors in OCDBT, or in zarr alone.

Until then its name, or that of one of its items, contains `.orbax-checkpoint-tmp`. With OCDBT each process writes below
`ocdbt.process_N`, and their merging writes `manifest.ocdbt`: 0x0cdb3a2a, its own length (little-endian), the content.
Sources: orbax.checkpoint.path.atomicity, "Checkpoint Format Guide" of Orbax, "OCDBT" of TensorStore's documentation.
Not judged: whether the data files that a manifest refers to are whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from piolet.data.checkpoints.listing import Listing

NAME = "Orbax"
TEMPORARY = ".orbax-checkpoint-tmp"
_MARKERS = frozenset({"_CHECKPOINT_METADATA", "_METADATA", "orbax.checkpoint", "commit_success.txt", "manifest.ocdbt"})
_METADATA = ("_CHECKPOINT_METADATA", "_METADATA")
_MANIFEST = "manifest.ocdbt"
_MAGIC = bytes.fromhex("0cdb3a2a")
_HEADER_BYTES = 12


def holds(listing: Listing) -> bool:
    """Return whether the directory is of this format, complete or torn."""
    return TEMPORARY in listing.name or any(each in _MARKERS for each in listing.top())


def faults(listing: Listing) -> Iterator[str]:
    """Yield what is missing, cut off or not committed."""
    if TEMPORARY in listing.name:
        yield "it still has its temporary name"
        return
    parts = {part for each in listing.sizes for part in each.split("/")[:-1]}
    yield from (f"{each} still has its temporary name" for each in sorted(parts) if TEMPORARY in each)
    for directory in sorted(
        {each.partition("ocdbt.process_")[0] for each in listing.sizes if "ocdbt.process_" in each}
    ):
        if directory + _MANIFEST not in listing.sizes:
            yield f"{directory}{_MANIFEST} is missing: what the processes wrote is not merged"
    for path in sorted(listing.sizes):
        name = path.rpartition("/")[2]
        if name == _MANIFEST and not _is_manifest(listing, path):
            yield f"{path} is cut off"
        elif name in _METADATA and not _is_json(listing, path):
            yield f"{path} is not whole JSON"


def _is_manifest(listing: Listing, path: str) -> bool:
    with listing.open(path) as stream:
        header = stream.read(_HEADER_BYTES)
    return header.startswith(_MAGIC) and int.from_bytes(header[len(_MAGIC) :], "little") == listing.sizes[path]


def _is_json(listing: Listing, path: str) -> bool:
    with listing.open(path) as stream:
        try:
            json.load(stream)
        except (ValueError, RecursionError):
            return False
    return True
