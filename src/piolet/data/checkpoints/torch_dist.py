"""`torch.distributed.checkpoint`, which FSDP, torchtitan and Megatron (as torch_dist) write.

Each rank writes `__RANK_N.distcp`; when all have, the coordinator writes `.metadata`, a pickle whose `storage_data`
says where each tensor lies: file, offset and length. Source: torch.distributed.checkpoint.filesystem, PyTorch 2.13.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from piolet.data.checkpoints import inert
from piolet.data.checkpoints.listing import Listing

NAME = "torch_dist"
_METADATA = ".metadata"
_SUFFIX = ".distcp"


def holds(listing: Listing) -> bool:
    """Return whether the directory is of this format, complete or torn."""
    return any(each == _METADATA or each.endswith(_SUFFIX) for each in listing.top())


def faults(listing: Listing) -> Iterator[str]:
    """Yield what is missing or cut off."""
    if _METADATA not in listing.sizes:
        yield f"there is no {_METADATA}, which is written last"
        return
    try:
        with listing.open(_METADATA) as stream:
            wanted = _extents(inert.load(stream))
    except ValueError as error:
        yield f"{_METADATA} cannot be read: {error}"
        return
    for name, end in sorted(wanted.items()):
        size = listing.sizes.get(name)
        if size is None:
            yield f"{name} is missing"
        elif size < end:
            yield f"{name} is cut off: {size} of {end} bytes"


def _extents(metadata: Any) -> dict[str, int]:  # noqa: ANN401 - out of a pickle
    """Return the bytes that each file must have at least; ValueError if the metadata have another form."""
    try:
        ends: dict[str, int] = {}
        for info in metadata.state["storage_data"].values():
            name, end = str(info.state["relative_path"]), int(info.state["offset"]) + int(info.state["length"])
            ends[name] = max(end, ends.get(name, 0))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("it does not say where the tensors lie") from error
    return ends
