"""YAML with positions: PyYAML's safe loader gives the values, its node tree where each of them stands.

Stricter than YAML: keys are text and appear once, and a document is small.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from piolet.core.errors import ConfigError, storage_errors
from piolet.core.toml import Document, Position

_MAX_BYTES = 1 << 20
_MAX_NODES = 10_000
_EXPAND = "take repeated parts out of the file, or write them out"


def read(path: Path) -> Document:
    """Read and parse `path`; whatever is wrong is a ConfigError with line and column, or a StorageError."""
    with storage_errors(path, "read"):
        content = path.read_bytes()
    return parse(content, path)


def parse(content: bytes, path: Path) -> Document:
    """Parse YAML `content`, whose top level must be a mapping; `path` is for messages."""
    if len(content) > _MAX_BYTES:
        raise ConfigError(
            "the file is larger than 1 MiB", path=path, remedy="this is hardly a protocol; check the name"
        )
    try:
        loader = yaml.SafeLoader(content)
        root = loader.get_single_node()
        positions = dict(_counted(root, path)) if root else {}
        data = loader.construct_document(root) if root else {}
    except (yaml.YAMLError, ValueError) as error:
        raise _syntax_error(error, path) from error
    if not isinstance(data, dict):
        raise ConfigError("the top level is not a mapping", path=path, line=1, remedy="begin with `name:` and `evals:`")
    return Document(path, data, positions)


def _counted(root: yaml.Node, path: Path) -> Iterator[tuple[str, Position]]:
    """Walk the tree, but not endlessly: aliases can make a small file enormous."""
    for count, entry in enumerate(_walk(root, "", path, ())):
        if count > _MAX_NODES:
            raise ConfigError("the file has too many values once its aliases are expanded", path=path, remedy=_EXPAND)
        yield entry


def _walk(node: yaml.Node, key: str, path: Path, above: tuple[int, ...]) -> Iterator[tuple[str, Position]]:
    if id(node) in above:
        raise ConfigError("an alias contains itself", path=path, key=key, line=_at(node).line, remedy=_EXPAND)
    above = (*above, id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            text = _key(name, path, seen)
            inner = f"{key}.{text}" if key else text
            yield inner, _at(name)
            yield from _walk(value, inner, path, above)
    elif isinstance(node, yaml.SequenceNode):
        for index, element in enumerate(node.value):
            yield f"{key}[{index}]", _at(element)
            yield from _walk(element, f"{key}[{index}]", path, above)


def _key(node: yaml.Node, path: Path, seen: set[str]) -> str:
    at = _at(node)
    if not isinstance(node, yaml.ScalarNode) or node.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
        raise ConfigError("a key is not text", path=path, line=at.line, column=at.column, remedy="put it in quotes")
    text = str(node.value)
    if text in seen:
        raise ConfigError(
            f'"{text}" appears twice', path=path, key=text, line=at.line, column=at.column, remedy="keep one of the two"
        )
    seen.add(text)
    return text


def _syntax_error(error: yaml.YAMLError | ValueError, path: Path) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error).splitlines()[0]
    line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
    return ConfigError(f"not valid YAML: {what}", path=path, line=line, column=column, remedy="correct the file there")


def _at(node: yaml.Node) -> Position:
    return Position(node.start_mark.line + 1, node.start_mark.column + 1)
