"""Formats that describe computations: ONNX, Keras, TensorFlow, and the JSON beside a model. Read as data only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any

from piolet.guard import rules
from piolet.guard.finding import Rule
from piolet.tools.safetensors import Unsound

Seen = tuple[Rule, str]

MAX_JSON_BYTES = 64 << 20
_GRAPH = 7
_MAX_DEPTH = 32
_MAX_TEXT = 1 << 16
_CHUNK = 1 << 20
_OVERLAP = 64

_ONNX = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "tensor": {13: "external"},
    "external": {},
}
"""Which field of a message holds which message (onnx.proto); all others are passed over."""

_TEMPLATE = re.compile(
    r"__(?:class|globals|builtins|subclasses|import|mro|init|bases?|getattribute|dict|code|reduce)\w*__"
    r"|\b(?:lipsum|cycler|joiner)\b|\|\s*attr\b|_TemplateReference__"
)
_LAMBDA = re.compile(rb'"class_name"\s{0,4}:\s{0,4}"Lambda"')
_OPERATIONS = re.compile(rb"\x12(?:\x08ReadFile|\x09WriteFile|\x06PyFunc|\x0bEagerPyFunc|\x0fPyFuncStateless)")


def onnx(stream: IO[bytes], size_bytes: int) -> Iterator[Seen]:
    """Yield tensors whose data an ONNX model takes from outside of its directory; Unsound if it is none."""
    for path in _external(stream, "model", size_bytes, 0):
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path.replace("\\", "/")).parts:
            yield rules.OUTSIDE, f"tensor data at {path[:80]!r}"


def _external(stream: IO[bytes], message: str, end: int, depth: int) -> Iterator[str]:
    """Walk protobuf fields up to `end`, and yield the `location` of each external tensor."""
    if depth > _MAX_DEPTH:
        raise Unsound("graphs are nested too deeply")
    entry: dict[int, str] = {}
    seen: set[int] = set()
    while stream.tell() < end:
        number, kind = divmod(_varint(stream), 8)
        length = _varint(stream) if kind in {0, 2} else {1: 8, 5: 4}.get(kind, -1)
        after = stream.tell() + (0 if kind == 0 else length)
        if length < 0 or after > end or number == 0:
            raise Unsound(f"a {message} that is no protobuf, or torn")
        inner = _ONNX[message].get(number)
        if inner and kind == 2:  # noqa: PLR2004 - a length-delimited field
            yield from _external(stream, inner, after, depth + 1)
        elif message == "external" and kind == 2:  # noqa: PLR2004 - same
            entry[number] = stream.read(min(length, _MAX_TEXT)).decode("utf-8", "replace")
        seen.add(number)
        stream.seek(after)
    if message == "model" and _GRAPH not in seen:
        raise Unsound("a model without a graph")
    if entry.get(1) == "location":
        yield entry.get(2, "")


def _varint(stream: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:  # noqa: PLR2004 - the last byte of a varint
            return value
    raise Unsound("the protobuf is torn")


def keras_bytes(stream: IO[bytes]) -> Iterator[Seen]:
    """Yield Lambda layers, which hold code, of a Keras model in HDF5. The JSON in it is found by its text."""
    if _found(stream, _LAMBDA):
        yield rules.CODE, "a Keras Lambda layer"


def tensorflow(stream: IO[bytes], _size_bytes: int) -> Iterator[Seen]:
    """Yield operations of a SavedModel that read or write files, or call Python."""
    for name in sorted(_found(stream, _OPERATIONS)):
        yield rules.CODE, f"the operation {name[2:].decode()}"


def _found(stream: IO[bytes], pattern: re.Pattern[bytes]) -> set[bytes]:
    found: set[bytes] = set()
    before = b""
    while chunk := stream.read(_CHUNK):
        found.update(pattern.findall(before + chunk))
        before = chunk[-_OVERLAP:]
    return found


def settings(stream: IO[bytes], _size_bytes: int) -> Iterator[Seen]:
    """Yield what the JSON of a model asks for: code of its own, code of others, templates that reach into Python."""
    content = stream.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise Unsound(f"JSON of over {MAX_JSON_BYTES} bytes")
    try:
        yield from _settings(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise Unsound(f"not JSON: {str(error)[:80]}") from error


def _settings(value: Any) -> Iterator[Seen]:  # noqa: ANN401 - any JSON value
    if isinstance(value, list):
        for each in value:
            yield from _settings(each)
    if not isinstance(value, dict):
        return
    if value.get("class_name") == "Lambda" or "__lambda__" in (value.get("class_name"), value.get("function")):
        yield rules.CODE, "a Keras Lambda layer"
    for key, each in value.items():
        if key == "auto_map":
            yield from _auto_map(each)
        elif "chat_template" in key:
            yield from template(json.dumps(each))
        yield from _settings(each)


def _auto_map(value: Any) -> Iterator[Seen]:  # noqa: ANN401 - any JSON value
    for name in re.findall(r'"([^"]+)"\s*(?=[,}\]]|$)', json.dumps(value)):
        yield (rules.FOREIGN_CODE if "--" in name else rules.REMOTE_CODE), f"auto_map names {name[:80]}"


def template(text: str) -> Iterator[Seen]:
    """Yield what reaches into Python's internals from a Jinja template."""
    match = _TEMPLATE.search(text)
    if match:
        yield rules.TEMPLATE, f"the template uses {match[0]}"


def template_file(stream: IO[bytes], _size_bytes: int) -> Iterator[Seen]:
    """Do so for a file that is a template."""
    yield from template(stream.read(MAX_JSON_BYTES).decode("utf-8", "replace"))
