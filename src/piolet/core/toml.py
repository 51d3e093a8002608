"""TOML with positions: tomllib gives the values, tree-sitter where each of them stands.

Keys are dotted paths; an element of an array is ``mounts[2]``. Lines and columns count from 1.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piolet.core.errors import ConfigError, storage_errors

if TYPE_CHECKING:
    from tree_sitter import Node, Parser


Place = tuple[int, int]
"""Row and column in bytes, both from 0, as tree-sitter counts."""


@dataclass(frozen=True, slots=True)
class Position:
    """Line and column, both from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed TOML file: its values and the position of each key and array element."""

    path: Path
    data: dict[str, Any]
    positions: dict[str, Position]

    def error(self, what: str, key: str, *, remedy: str = "") -> ConfigError:
        """Return a ConfigError that points at `key`, or at its nearest known parent."""
        position = self.position(key)
        line, column = (position.line, position.column) if position else (None, None)
        return ConfigError(what, path=self.path, key=key, line=line, column=column, remedy=remedy)

    def position(self, key: str) -> Position | None:
        """Return where `key` or its nearest known parent stands; an array of tables stands where its first does."""
        while key and key not in self.positions and f"{key}[0]" not in self.positions:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self.positions.get(key) or self.positions.get(f"{key}[0]")


def read(path: Path) -> Document:
    """Read and parse `path`; a syntax error is a ConfigError with its line and column."""
    with storage_errors(path, "read"):
        content = path.read_bytes()
    return parse(content, path)


def parse(content: bytes, path: Path) -> Document:
    """Parse TOML `content`; `path` is for messages."""
    try:
        data = tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(
            "not UTF-8 text", path=path, remedy="save the file as UTF-8; TOML allows nothing else"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(error, path, content.count(b"\n") + 1) from error
    lines = content.split(b"\n")
    places = _walk(_parser().parse(content).root_node)
    return Document(path, data, {key: _position(lines, *place) for key, place in places})


@cache
def _parser() -> Parser:
    import tree_sitter_toml  # noqa: PLC0415 - only a file that the user wrote needs it
    from tree_sitter import Language, Parser  # noqa: PLC0415 - same

    return Parser(Language(tree_sitter_toml.language()))


def _syntax_error(error: tomllib.TOMLDecodeError, path: Path, last_line: int) -> ConfigError:
    what, _, place = str(error).partition(" (at ")
    digits = [int(word) for word in place.replace(",", " ").replace(")", " ").split() if word.isdigit()]
    line, column = (digits[0], digits[1]) if len(digits) == 2 else (last_line, None)  # noqa: PLR2004 - line, column
    return ConfigError(f"not valid TOML: {what}", path=path, line=line, column=column, remedy="correct the file there")


def _walk(root: Node) -> Iterator[tuple[str, Place]]:
    tables: dict[str, int] = {}
    for child in root.named_children:
        if child.type == "pair":
            yield from _pair(child, "")
        elif child.type in {"table", "table_array_element"}:
            name = _table(_parts(child.named_children[0]), tables, element=child.type == "table_array_element")
            yield name, _at(child)
            for pair in child.named_children[1:]:
                if pair.type == "pair":
                    yield from _pair(pair, name)


def _table(parts: list[str], tables: dict[str, int], *, element: bool) -> str:
    """Return the name of a table header; `tables` counts the elements of each array of tables so far."""
    name = ""
    for depth, part in enumerate(parts, 1):
        name = f"{name}.{part}" if name else part
        if element and depth == len(parts):
            tables[name] = tables.get(name, -1) + 1
        if name in tables:
            name = f"{name}[{tables[name]}]"
    return name


def _pair(pair: Node, prefix: str) -> Iterator[tuple[str, Place]]:
    key, value = pair.named_children[0], pair.named_children[-1]
    name = ".".join(part for part in (prefix, *_parts(key)) if part)
    yield name, _at(pair)
    yield from _value(value, name)


def _value(value: Node, name: str) -> Iterator[tuple[str, Place]]:
    if value.type == "array":
        elements = [child for child in value.named_children if child.type != "comment"]
        for index, element in enumerate(elements):
            yield f"{name}[{index}]", _at(element)
            yield from _value(element, f"{name}[{index}]")
    elif value.type == "inline_table":
        for pair in value.named_children:
            if pair.type == "pair":
                yield from _pair(pair, name)


def _parts(node: Node) -> list[str]:
    """Return the parts of a key as TOML reads it, quotes and all."""
    text = (node.text or b"").decode("utf-8")
    probe: Any = tomllib.loads(f"{text} = 0")
    parts = []
    while isinstance(probe, dict):
        name, probe = next(iter(probe.items()))
        parts.append(name)
    return parts


def _at(node: Node) -> Place:
    return node.start_point[0], node.start_point[1]


def _position(lines: list[bytes], row: int, column_bytes: int) -> Position:
    """Return where a place is for people, who count characters and not bytes, both from 1."""
    return Position(row + 1, len(lines[row][:column_bytes].decode("utf-8")) + 1)
