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
        """Return where `key` or its nearest known parent stands."""
        while key and key not in self.positions:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self.positions.get(key)


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
        raise _syntax_error(error, path) from error
    return Document(path, data, dict(_walk(_parser().parse(content).root_node)))


@cache
def _parser() -> Parser:
    import tree_sitter_toml  # noqa: PLC0415 - only a file that the user wrote needs it
    from tree_sitter import Language, Parser  # noqa: PLC0415 - same

    return Parser(Language(tree_sitter_toml.language()))


def _syntax_error(error: tomllib.TOMLDecodeError, path: Path) -> ConfigError:
    what, _, place = str(error).partition(" (at ")
    digits = [int(word) for word in place.replace(",", " ").replace(")", " ").split() if word.isdigit()]
    line, column = (digits[0], digits[1]) if len(digits) == 2 else (None, None)  # noqa: PLR2004 - line, column
    return ConfigError(f"not valid TOML: {what}", path=path, line=line, column=column, remedy="correct the file there")


def _walk(root: Node) -> Iterator[tuple[str, Position]]:
    tables: dict[str, int] = {}
    for child in root.named_children:
        if child.type == "pair":
            yield from _pair(child, "")
        elif child.type in {"table", "table_array_element"}:
            name = _key(child.named_children[0])
            if child.type == "table_array_element":
                tables[name] = tables.get(name, -1) + 1
                name = f"{name}[{tables[name]}]"
            yield name, _at(child)
            for pair in child.named_children[1:]:
                if pair.type == "pair":
                    yield from _pair(pair, name)


def _pair(pair: Node, prefix: str) -> Iterator[tuple[str, Position]]:
    key, value = pair.named_children[0], pair.named_children[-1]
    name = ".".join(part for part in (prefix, _key(key)) if part)
    yield name, _at(pair)
    yield from _value(value, name)


def _value(value: Node, name: str) -> Iterator[tuple[str, Position]]:
    if value.type == "array":
        elements = [child for child in value.named_children if child.type != "comment"]
        for index, element in enumerate(elements):
            yield f"{name}[{index}]", _at(element)
            yield from _value(element, f"{name}[{index}]")
    elif value.type == "inline_table":
        for pair in value.named_children:
            if pair.type == "pair":
                yield from _pair(pair, name)


def _key(node: Node) -> str:
    text = (node.text or b"").decode("utf-8")
    probe: Any = tomllib.loads(f"{text} = 0")
    parts = []
    while isinstance(probe, dict):
        name, probe = next(iter(probe.items()))
        parts.append(name)
    return ".".join(parts)


def _at(node: Node) -> Position:
    return Position(node.start_point[0] + 1, node.start_point[1] + 1)
