"""Writing a small Parquet file with nothing but the standard library.

The recorder writes one every few seconds on every node. The libraries that could do it keep 60 MB resident beside the
program; what it needs is one row group of flat, optional columns in plain encoding. DuckDB merges the files later.
Sources: the Parquet format (Thrift structures, data page version 1) and Thrift's compact protocol.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from piolet.logbook.schema import Column, Family

_MAGIC = b"PAR1"
_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12
_PLAIN, _RLE = 0, 3
_OPTIONAL = 1
_UTF8 = 0
_GZIP = 2
_GZIP_WINDOW = 31
"""zlib's window size for a gzip header, which Parquet's codec of that name asks for."""

_FAST = 1
_SHORT_LIST = 15
_NUMBERS = {"INTEGER": (1, "i"), "BIGINT": (2, "q"), "FLOAT": (4, "f"), "DOUBLE": (5, "d")}
"""Parquet's physical type and the struct code of each SQL type that is a number."""

_BOOLEAN, _BYTE_ARRAY = 0, 6

Field = tuple[int, int, Any]
"""Number, Thrift type and value; the value of a list is (element type, elements), of a struct its fields."""


def encode(family: Family, rows: Sequence[Sequence[Any]], metadata: Mapping[str, str]) -> bytes:
    """Return the file that holds `rows`, each with a value or None for every column of the family."""
    content = bytearray(_MAGIC)
    chunks = []
    for column, values in zip(family.columns, zip(*rows, strict=True), strict=True):
        chunk = _chunk(column, values, len(content))
        content += chunk.content
        chunks.append(chunk)
    footer = _struct(_footer(family, len(rows), chunks, metadata))
    return bytes(content) + footer + struct.pack("<I", len(footer)) + _MAGIC


@dataclass(frozen=True, slots=True)
class _Chunk:
    """The one page of a column, with its header; `plain_bytes` is its size before compression."""

    column: Column
    content: bytes
    offset: int
    rows: int
    plain_bytes: int


def _chunk(column: Column, values: Sequence[Any], offset: int) -> _Chunk:
    levels = _levels(values)
    page = struct.pack("<I", len(levels)) + levels + _plain(column, [value for value in values if value is not None])
    packed = _gzip(page)
    data_page: list[Field] = [(1, _I32, len(values)), (2, _I32, _PLAIN), (3, _I32, _RLE), (4, _I32, _RLE)]
    header = _struct([(1, _I32, 0), (2, _I32, len(page)), (3, _I32, len(packed)), (5, _STRUCT, data_page)])
    return _Chunk(column, header + packed, offset, len(values), len(header) + len(page))


def _gzip(content: bytes) -> bytes:
    packer = zlib.compressobj(_FAST, wbits=_GZIP_WINDOW)
    return packer.compress(content) + packer.flush()


def _levels(values: Iterable[Any]) -> bytes:
    """Return the definition levels as runs: 1 where there is a value, 0 for null."""
    runs = ((present, len(list(group))) for present, group in groupby(value is not None for value in values))
    return b"".join(_varint(length << 1) + bytes([present]) for present, length in runs)


def _plain(column: Column, values: Sequence[Any]) -> bytes:
    if column.kind == "BOOLEAN":
        bits = sum(1 << place for place, value in enumerate(values) if value)
        return bits.to_bytes((len(values) + 7) // 8, "little")
    if column.kind in _NUMBERS:
        return struct.pack(f"<{len(values)}{_NUMBERS[column.kind][1]}", *values)
    texts = (str(value).encode("utf-8", "backslashreplace") for value in values)
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _footer(family: Family, rows: int, chunks: Sequence[_Chunk], metadata: Mapping[str, str]) -> list[Field]:
    root: list[Field] = [(4, _BINARY, family.name), (5, _I32, len(family.columns))]
    group: list[Field] = [
        (1, _LIST, (_STRUCT, [_column_chunk(chunk) for chunk in chunks])),
        (2, _I64, sum(chunk.plain_bytes for chunk in chunks)),
        (3, _I64, rows),
    ]
    pairs: list[list[Field]] = [[(1, _BINARY, key), (2, _BINARY, value)] for key, value in metadata.items()]
    return [
        (1, _I32, 1),
        (2, _LIST, (_STRUCT, [root, *map(_element, family.columns)])),
        (3, _I64, rows),
        (4, _LIST, (_STRUCT, [group])),
        (5, _LIST, (_STRUCT, pairs)),
        (6, _BINARY, "piolet"),
    ]


def _element(column: Column) -> list[Field]:
    element: list[Field] = [(1, _I32, _physical(column)), (3, _I32, _OPTIONAL), (4, _BINARY, column.name)]
    return [*element, (6, _I32, _UTF8)] if column.kind == "VARCHAR" else element


def _column_chunk(chunk: _Chunk) -> list[Field]:
    described: list[Field] = [
        (1, _I32, _physical(chunk.column)),
        (2, _LIST, (_I32, [_PLAIN, _RLE])),
        (3, _LIST, (_BINARY, [chunk.column.name])),
        (4, _I32, _GZIP),
        (5, _I64, chunk.rows),
        (6, _I64, chunk.plain_bytes),
        (7, _I64, len(chunk.content)),
        (9, _I64, chunk.offset),
    ]
    return [(2, _I64, chunk.offset), (3, _STRUCT, described)]


def _physical(column: Column) -> int:
    if column.kind in _NUMBERS:
        return _NUMBERS[column.kind][0]
    return _BOOLEAN if column.kind == "BOOLEAN" else _BYTE_ARRAY


def _struct(fields: Sequence[Field]) -> bytes:
    """Return fields, whose numbers ascend by at most 15, in Thrift's compact protocol."""
    content, before = bytearray(), 0
    for number, kind, value in fields:
        content.append((number - before) << 4 | kind)
        content += _value(kind, value)
        before = number
    return bytes(content) + b"\0"


def _value(kind: int, value: Any) -> bytes:  # noqa: ANN401 - as its Thrift type says
    if kind == _BINARY:
        text: bytes = value.encode()
        return _varint(len(text)) + text
    if kind == _STRUCT:
        return _struct(value)
    if kind == _LIST:
        inner, elements = value
        size = len(elements)
        head = bytes([size << 4 | inner]) if size < _SHORT_LIST else bytes([_SHORT_LIST << 4 | inner]) + _varint(size)
        return head + b"".join(_value(inner, element) for element in elements)
    return _varint(value << 1)  # zigzag of numbers that are never negative here


def _varint(number: int) -> bytes:
    content = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        content.append(number & 0x7F | 0x80)
        number >>= 7
    content.append(number)
    return bytes(content)
