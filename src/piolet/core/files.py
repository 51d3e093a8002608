"""Writing files so that a reader sees the old content or the new one, never half of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from piolet.core.errors import ParseError, UsageError, storage_errors

_SURROGATE = re.compile("[\ud800-\udfff]")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is synced and renamed, on failure removed."""
    with _partial(path) as partial:
        yield partial
        _sync(partial)
        partial.replace(path)


def create_text(path: Path, text: str) -> None:
    """Write `text` to a new file atomically; a file that is there already is a UsageError and stays as it is."""
    with _partial(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")
        _sync(partial)
        try:
            path.hardlink_to(partial)  # unlike a rename, it replaces nothing, however many try at once
        except FileExistsError as error:
            raise UsageError(
                "the file is there already, and is left as it is", where=str(path), remedy="choose another name"
            ) from error


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    with storage_errors(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
        try:
            yield partial
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write `text` to `path` atomically."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")
        partial.chmod(mode)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - JSON is any value
    r"""Write `value` to `path` atomically, indented and key-ordered as given.

    Surrogate escapes, from text that was not UTF-8, stand as ``\udcxx``: the file is UTF-8 and nothing is lost.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    write_text(path, _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON is any value
    """Read a JSON file; a torn or foreign file is a ParseError that names it."""
    with storage_errors(path, "read"):
        content = path.read_bytes()
    try:
        return json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise ParseError(f"not valid JSON: {error}", source=str(path)) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
