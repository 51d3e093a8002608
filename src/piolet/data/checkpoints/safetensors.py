"""safetensors, as Hugging Face libraries write them: one file, or shards with `*.safetensors.index.json`.

The index names the shard of each tensor. Source: "Sharded checkpoints" of Accelerate's guide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from piolet.data.checkpoints.listing import Listing
from piolet.tools.safetensors import Unsound, tensor_names

NAME = "safetensors"
_SUFFIX = ".safetensors"
_INDEX = ".safetensors.index.json"
_SHARD = re.compile(r"(?P<stem>.*-)(?P<number>\d+)-of-(?P<total>\d{1,6})\.safetensors")


def holds(listing: Listing) -> bool:
    """Return whether the directory is of this format, complete or torn."""
    return any(each.endswith((_SUFFIX, _INDEX)) for each in listing.top())


def faults(listing: Listing) -> Iterator[str]:
    """Yield what is missing or cut off."""
    tensors: dict[str, set[str]] = {}
    for name in sorted(each for each in listing.top() if each.endswith(_SUFFIX)):
        try:
            with listing.open(name) as stream:
                tensors[name] = tensor_names(stream, listing.sizes[name])
        except Unsound as error:
            yield f"{name}: {error}"
            return
    for name in sorted(each for each in listing.top() if each.endswith(_INDEX)):
        yield from _index_faults(listing, name, tensors)
    for name in sorted(_siblings(tensors) - set(tensors)):
        yield f"{name} is missing"


def _index_faults(listing: Listing, name: str, tensors: Mapping[str, set[str]]) -> Iterator[str]:
    try:
        with listing.open(name) as stream:
            places = dict(json.load(stream)["weight_map"])
    except (KeyError, RecursionError, TypeError, ValueError):
        yield f"{name} has no JSON with a weight_map"
        return
    for shard in sorted(set(map(str, places.values()))):
        here = {each for each, place in places.items() if place == shard}
        if shard not in tensors:
            yield f"{shard} is missing"
        elif absent := sorted(here - tensors[shard]):
            yield f"{shard} has no tensor {absent[0]}"


def _siblings(names: Mapping[str, set[str]]) -> set[str]:
    """Return the names of all shards of which one is there and has an own number and their total in its name."""
    found = set()
    for match in filter(None, map(_SHARD.fullmatch, names)):
        digits = len(match["number"])
        for number in range(1, int(match["total"]) + 1):
            found.add(f"{match['stem']}{number:0{digits}d}-of-{match['total']}{_SUFFIX}")
    return found
