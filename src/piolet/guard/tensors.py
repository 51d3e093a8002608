"""Formats that hold tensors and no code: GGUF, NumPy. Headers are untrusted: every bound is checked.

Each function reads a header from a seekable stream and raises `Unsound` with the first thing that is wrong.
"""

from __future__ import annotations

import ast
import math
import struct
from collections.abc import Iterator
from typing import IO, Any

from piolet.tools.safetensors import Unsound

_GGUF_MAX_COUNT = 1 << 20
_GGUF_MAX_TEXT = 64 << 20
_GGUF_MAX_DIMENSIONS = 4
_GGUF_VERSIONS = range(2, 4)
_GGUF_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_GGUF_STRING, _GGUF_ARRAY = 8, 9
_GGUF_BYTES = {0: 4, 1: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8, 30: 2}
"""Bytes an element of the types that are not quantised in blocks (ggml.h, enum ggml_type)."""
_NUMPY_MAX_HEADER = 1 << 20


def check_gguf(stream: IO[bytes], size_bytes: int) -> dict[str, str]:
    """Check a GGUF file (version 2 or 3) and return the text values of its metadata.

    Tensors that are quantised in blocks are checked to begin within the file, the others to end within it.
    """
    magic, version, tensors, pairs = struct.unpack("<4sIQQ", _exactly(stream, 24))
    if magic != b"GGUF" or version not in _GGUF_VERSIONS:
        raise Unsound(f"GGUF of version {version}; 2 and 3 are known")
    if max(tensors, pairs) > _GGUF_MAX_COUNT:
        raise Unsound(f"{tensors} tensors and {pairs} values")
    values = {_gguf_text(stream): _gguf_value(stream, *_unpack(stream, "<I")) for _ in range(pairs)}
    ends = [_gguf_tensor(stream) for _ in range(tensors)]
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment % 8:
        raise Unsound(f"an alignment of {str(alignment)[:40]}")
    data = -(-stream.tell() // alignment) * alignment
    for name, end in ends:
        if data + end > size_bytes:
            raise Unsound(f"tensor {name[:80]!r} ends {data + end - size_bytes} bytes behind the file")
    return {key: value for key, value in values.items() if isinstance(value, str)}


def _gguf_tensor(stream: IO[bytes]) -> tuple[str, int]:
    name = _gguf_text(stream)
    (dimensions,) = _unpack(stream, "<I")
    if dimensions > _GGUF_MAX_DIMENSIONS:
        raise Unsound(f"tensor {name[:80]!r} has {dimensions} dimensions")
    shape = _unpack(stream, f"<{dimensions}Q")
    kind, offset = _unpack(stream, "<IQ")
    return name, offset + math.prod(shape) * _GGUF_BYTES.get(kind, 0)


def _gguf_value(stream: IO[bytes], kind: int, *, nested: bool = False) -> int | float | str | None:
    if kind in _GGUF_SCALARS:
        found: int | float = _unpack(stream, f"<{_GGUF_SCALARS[kind]}")[0]
        return found
    if kind == _GGUF_STRING:
        return _gguf_text(stream)
    if kind != _GGUF_ARRAY or nested:
        raise Unsound(f"a metadata value of type {kind}")
    inner, count = _unpack(stream, "<IQ")
    if inner in _GGUF_SCALARS:
        _exactly(stream, count * struct.calcsize(f"<{_GGUF_SCALARS[inner]}"))
    else:
        for _ in range(count):  # a string takes at least 8 bytes, so the file bounds the count
            _gguf_value(stream, inner, nested=True)
    return None


def _gguf_text(stream: IO[bytes]) -> str:
    (length,) = _unpack(stream, "<Q")
    return _exactly(stream, length).decode("utf-8", "replace")


def numpy_objects(stream: IO[bytes]) -> bool:
    """Read the header of a .npy file; return whether a pickle of objects follows it."""
    _, major, _ = struct.unpack("<6sBB", _exactly(stream, 8))
    (length,) = _unpack(stream, "<H" if major == 1 else "<I")
    if length > _NUMPY_MAX_HEADER:
        raise Unsound(f"a header of {length} bytes")
    try:
        header = ast.literal_eval(_exactly(stream, length).decode("utf-8").strip())
        return any("O" in kind for kind in _kinds(header["descr"]))
    except (ValueError, SyntaxError, RecursionError, MemoryError, KeyError, TypeError) as error:
        raise Unsound(f"the header cannot be read: {type(error).__name__}") from error


def _kinds(description: Any) -> Iterator[str]:  # noqa: ANN401 - a dtype is text, or nested lists of fields
    if isinstance(description, str):
        yield description
    elif isinstance(description, tuple):
        yield from _kinds(description[1])
    else:
        for each in description:
            yield from _kinds(each)


def _unpack(stream: IO[bytes], form: str) -> tuple[Any, ...]:
    return struct.unpack(form, _exactly(stream, struct.calcsize(form)))


def _exactly(stream: IO[bytes], count: int) -> bytes:
    if count > _GGUF_MAX_TEXT:
        raise Unsound(f"a field of {count} bytes")
    found = stream.read(count)
    if len(found) != count:
        raise Unsound("the file ends within its header")
    return found
