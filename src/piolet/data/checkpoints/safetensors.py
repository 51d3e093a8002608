"""safetensors, as Hugging Face libraries write them: one file, or shards with `*.safetensors.index.json`.

A file is an 8-byte length, a JSON header of that length, and the tensors, whose last byte is the last of the file. The
index names the shard of each tensor. Source: the format's README, and "Sharded checkpoints" of Accelerate's guide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from piolet.data.checkpoints.listing import Listing

NAME = "safetensors"
_SUFFIX = ".safetensors"
_INDEX = ".safetensors.index.json"
_SHARD = re.compile(r"(?P<stem>.*-)(?P<number>\d+)-of-(?P<total>\d{1,6})\.safetensors")
_MAX_HEADER_BYTES = 100_000_000
"""What the safetensors library itself allows."""


def holds(listing: Listing) -> bool:
    """Return whether the directory is of this format, complete or torn."""
    return any(each.endswith((_SUFFIX, _INDEX)) for each in listing.top())


def faults(listing: Listing) -> Iterator[str]:
    """Yield what is missing or cut off."""
    tensors: dict[str, set[str]] = {}
    for name in sorted(each for each in listing.top() if each.endswith(_SUFFIX)):
        try:
            tensors[name] = _tensors(listing, name)
        except ValueError as error:
            yield f"{name} {error}"
            return
    for name in sorted(each for each in listing.top() if each.endswith(_INDEX)):
        yield from _index_faults(listing, name, tensors)
    for name in sorted(_siblings(tensors) - set(tensors)):
        yield f"{name} is missing"


def _tensors(listing: Listing, name: str) -> set[str]:
    """Return the names of the tensors in a file; ValueError unless it is whole."""
    size = listing.sizes[name]
    with listing.open(name) as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 + length or length > _MAX_HEADER_BYTES:
            raise ValueError("is cut off in its header")
        header = _json(stream.read(length))
    header.pop("__metadata__", None)
    try:
        end = 8 + length + max((int(each["data_offsets"][1]) for each in header.values()), default=0)
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError("has a header that does not say where its tensors lie") from error
    if size != end:
        raise ValueError(f"has {size} bytes and not {end}")
    return set(header)


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError("has no JSON where it must stand") from error
    if not isinstance(value, dict):
        raise ValueError("has no JSON object where it must stand")  # noqa: TRY004 - damage, not a mistake in code
    return value


def _index_faults(listing: Listing, name: str, tensors: dict[str, set[str]]) -> Iterator[str]:
    try:
        with listing.open(name) as stream:
            places = _json(stream.read()).get("weight_map")
    except ValueError as error:
        yield f"{name} {error}"
        return
    if not isinstance(places, dict):
        yield f"{name} has no weight_map"
        return
    for shard in sorted({str(each) for each in places.values()}):
        here = {each for each, place in places.items() if place == shard}
        if shard not in tensors:
            yield f"{shard} is missing"
        elif absent := sorted(here - tensors[shard]):
            yield f"{shard} has no tensor {absent[0]}"


def _siblings(names: dict[str, set[str]]) -> set[str]:
    """Return the names of all shards of which one is there and has an own number and their total in its name."""
    found = set()
    for match in filter(None, map(_SHARD.fullmatch, names)):
        digits = len(match["number"])
        for number in range(1, int(match["total"]) + 1):
            found.add(f"{match['stem']}{number:0{digits}d}-of-{match['total']}{_SUFFIX}")
    return found
