"""Reading a `service.toml`: every error names the file, the key, the line and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from piolet.core import toml
from piolet.core.errors import ConfigError, storage_errors
from piolet.core.problems import kept, raise_all
from piolet.core.text import did_you_mean
from piolet.service.model import Service, contradictions

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound="BaseModel")

MOST_FILE_BYTES = 512 * 1024
"""A ConfigMap holds 1 MiB in all (Kubernetes); a configuration file is far smaller."""

_MEANINGS = {
    "extra_forbidden": "unknown key",
    "missing": "is missing",
    "string_pattern_mismatch": "does not have the form {pattern}",
}


@dataclass(frozen=True, slots=True)
class ServiceFile:
    """A service, the document that says where each key stands, its configuration files, and its file as written."""

    service: Service
    document: toml.Document
    contents: Mapping[str, str]
    source: str


def read(path: Path) -> ServiceFile:
    """Read and check the service at `path`, a file or the directory of a `service.toml`.

    Raises:
        ConfigError, UsageError: one problem, or all of them.
        StorageError: a file cannot be read.
    """
    place = path / "service.toml" if path.is_dir() else path
    with storage_errors(place, "read"):
        source = place.read_bytes()
    return parse(source, place)


def parse(source: bytes, place: Path) -> ServiceFile:
    """Check the service that `source` describes, as if it stood at `place`; see `read`."""
    document = toml.parse(source, place)
    service = validated(document, Service)
    problems = [document.error(what, key, remedy=remedy) for key, what, remedy in contradictions(service)]
    raise_all(problems, str(place))
    return ServiceFile(service, document, _contents(service, document), source.decode())


def validated(document: toml.Document, model: type[M]) -> M:
    """Return the values of `document` as `model`.

    Raises:
        ConfigError, UsageError: one problem, or all of them.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - slow to import, and only files of users need it

    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise_all(list(_errors(document, model, error)), str(document.path))
        raise


def _errors(document: toml.Document, model: type[BaseModel], error: ValidationError) -> Iterator[ConfigError]:
    seen = set()
    for found in error.errors(include_url=False):
        key = _dotted(document.data, found["loc"])
        if key not in seen:
            seen.add(key)
            yield document.error(_what(key, found), key, remedy=_remedy(model, key, found))


def _dotted(data: Any, location: Sequence[str | int]) -> str:  # noqa: ANN401 - as in TOML
    """Return the key of a location, without the names of the alternatives that pydantic puts in between."""
    key = ""
    for part in location:
        if isinstance(part, int):
            key += f"[{part}]"
            data = data[part] if isinstance(data, list) and part < len(data) else None
        elif part == "[key]":
            break
        elif isinstance(data, dict) and part in data:
            key, data = f"{key}.{part}" if key else part, data[part]
        elif part == location[-1] and isinstance(data, dict):
            key = f"{key}.{part}" if key else part
    return key


def _what(key: str, found: Any) -> str:  # noqa: ANN401 - pydantic's own dictionary
    meaning = _MEANINGS.get(found["type"])
    if found["type"] == "extra_forbidden":
        return f'{meaning} "{key}"'
    if found["type"] == "missing":
        return f"{key} {meaning}"
    said = meaning.format(**found.get("ctx", {})) if meaning else found["msg"].removeprefix("Value error, ").lower()
    return f"{key}: {said}, not {found['input']!r}"[:300]


def _remedy(model: type[BaseModel], key: str, found: Any) -> str:  # noqa: ANN401 - pydantic's own dictionary
    if found["type"] == "extra_forbidden" and "." not in key:
        return did_you_mean(key, model.model_fields)
    if found["type"] == "extra_forbidden":
        return "the reference lists the keys of each table: docs/reference/service.md"
    return "add it" if found["type"] == "missing" else "correct the value"


def _contents(service: Service, document: toml.Document) -> dict[str, str]:
    problems: list[ConfigError] = []
    contents = {}
    for target, name in service.files.items():
        with kept(problems):
            contents[target] = _content(document, f"files.{target}", name)
    raise_all(problems, str(document.path))
    return contents


def _content(document: toml.Document, key: str, name: str) -> str:
    base = document.path.parent.resolve()
    path = (base / name).resolve()
    if not path.is_relative_to(base):
        raise document.error(f"{name} is not beside the service's file", key, remedy="copy the file there")
    if not path.is_file():
        raise document.error(f"there is no file {name}", key, remedy=f"it is looked for in {base}")
    with storage_errors(path, "read"):
        content = path.read_bytes()
    if len(content) > MOST_FILE_BYTES:
        raise document.error(f"{name} has {len(content)} bytes", key, remedy="configuration only; data goes to storage")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise document.error(f"{name} is not text", key, remedy="put binary data into the image or storage") from None
