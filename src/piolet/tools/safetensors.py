"""The header of a safetensors file. It is untrusted: every bound is checked before it is believed.

A file is an 8-byte length, a JSON header of that length, and the tensors, which fill the rest without a gap. Source:
the format's README.
"""

from __future__ import annotations

import json
import math
from typing import IO, Any

MAX_HEADER_BYTES = 100_000_000
"""What the safetensors library itself allows."""

_LENGTH_BYTES = 8
_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64,
    "I64": 64, "U64": 64, "C64": 64,
}  # fmt: skip


class Unsound(ValueError):  # noqa: N818 - the state of the file
    """A header that contradicts itself or its file; the message says how."""


def tensor_names(stream: IO[bytes], size_bytes: int) -> set[str]:
    """Return the names of the tensors of a whole file of `size_bytes`.

    Raises:
        Unsound: header length, JSON, types, shapes or offsets are wrong, or the tensors do not fill the file exactly.
    """
    length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
    start = _LENGTH_BYTES + length
    if length > MAX_HEADER_BYTES or start > size_bytes:
        raise Unsound(f"the header says {length} bytes, the file has {size_bytes}")
    header = _json(stream.read(length))
    header.pop("__metadata__", None)
    end = 0
    for begin, stop, name in sorted(_extent(name, entry) for name, entry in header.items()):
        if begin != end:
            raise Unsound(f"tensor {name[:80]!r} begins at {begin}, the one before it ends at {end}")
        end = stop
    if start + end != size_bytes:
        raise Unsound(f"the tensors end at {start + end} bytes, the file at {size_bytes}")
    return set(header)


def _json(content: bytes) -> dict[str, Any]:
    try:
        header = json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise Unsound(f"the header is no JSON: {str(error)[:80]}") from error
    if not isinstance(header, dict):
        raise Unsound("the header is no JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _extent(name: str, entry: Any) -> tuple[int, int, str]:  # noqa: ANN401 - any JSON value
    """Return where a tensor begins and ends, and its name."""
    try:
        begin, end = entry["data_offsets"]
        bits, shape = _DTYPE_BITS[entry["dtype"]], entry["shape"]
        sound = all(type(each) is int and each >= 0 for each in (*shape, begin, end))
    except (KeyError, TypeError, ValueError) as error:
        raise Unsound(f"tensor {name[:80]!r} lacks a known type, a shape or its offsets") from error
    if not sound or (end - begin) * 8 != math.prod(shape) * bits:
        raise Unsound(f"tensor {name[:80]!r} of {entry['dtype']} {str(shape)[:80]} does not fit its offsets")
    return begin, end, name
