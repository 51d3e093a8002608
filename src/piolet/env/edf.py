"""One EDF file: its keys, their types, and the place of each value. Strict: what is not known is an error."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piolet.core import toml
from piolet.core.errors import ConfigError
from piolet.core.problems import raise_all
from piolet.core.text import did_you_mean
from piolet.env import schema

KEYS = {
    "base_environment": (str, list),
    "image": (str, dict),
    "workdir": (str,),
    "entrypoint": (bool,),
    "writable": (bool,),
    "mounts": (list,),
    "devices": (list,),
    "env": (dict,),
    "annotations": (dict,),
    "start": (list,),
    "require": (dict,),
    "overlay": (dict,),
}
ARCHITECTURES = ("aarch64", "x86_64")  # as uname -m says
TYPE_NAMES = {str: "a string", list: "an array of strings", bool: "true or false", dict: "a table"}
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class Value:
    """A value as an EDF file gives it. `key` is its dotted path in `document`."""

    value: Any
    document: toml.Document
    key: str

    @property
    def origin(self) -> str:
        """The file and the line, as ``path:line``."""
        position = self.document.position(self.key)
        return f"{self.document.path}:{position.line}" if position else str(self.document.path)

    def error(self, what: str, remedy: str) -> ConfigError:
        """Return an error that points at this value."""
        return self.document.error(what, self.key, remedy=remedy)


@dataclass(frozen=True, slots=True)
class Edf:
    """One EDF file, checked. `images` is by architecture; `env` and `annotations` are flat, by name."""

    path: Path
    bases: tuple[Value, ...]
    images: Mapping[str, Value]
    scalars: Mapping[str, Value]
    mounts: tuple[Value, ...]
    devices: tuple[Value, ...]
    env: Mapping[str, Value]
    annotations: Mapping[str, Value]
    starts: tuple[Value, ...] = ()
    requires: tuple[Value, ...] = ()


def read(path: Path) -> Edf:
    """Read and check the EDF at `path`.

    Raises:
        ConfigError: not TOML, an unknown key, or a value of the wrong type; several problems come as one error.
        StorageError: the file cannot be read.
    """
    return from_document(toml.read(path))


def from_document(document: toml.Document) -> Edf:
    """Check a parsed document; see `read`."""
    raise_all(list(_problems(document)), "the environment")
    data = document.data
    return Edf(
        path=document.path,
        bases=_strings(document, "base_environment"),
        images=_images(document),
        scalars=_scalars(document),
        mounts=_strings(document, "mounts"),
        devices=_strings(document, "devices"),
        env={name: Value(text, document, f"env.{name}") for name, text in data.get("env", {}).items()},
        annotations=dict(_flattened(document, data.get("annotations", {}), "")),
        starts=tuple(Value(step, document, f"start[{index}]") for index, step in enumerate(data.get("start", ()))),
        requires=tuple(Value(what, document, f"require.{name}") for name, what in data.get("require", {}).items()),
    )


def _scalars(document: toml.Document) -> dict[str, Value]:
    """Return what a later file replaces, by dotted key."""
    data = document.data
    found = {key: Value(data[key], document, key) for key in ("workdir", "entrypoint", "writable") if key in data}
    overlay = data.get("overlay", {})
    return found | {f"overlay.{key}": Value(text, document, f"overlay.{key}") for key, text in overlay.items()}


def _strings(document: toml.Document, key: str) -> tuple[Value, ...]:
    value = document.data.get(key, [])
    if isinstance(value, str):
        return (Value(value, document, key),)
    return tuple(Value(text, document, f"{key}[{index}]") for index, text in enumerate(value))


def _images(document: toml.Document) -> dict[str, Value]:
    """Return the image for each architecture; one that is no table is for all of them."""
    image = document.data.get("image", {})
    if isinstance(image, dict):
        return {name: Value(text, document, f"image.{name}") for name, text in image.items()}
    return dict.fromkeys((*ARCHITECTURES, os.uname().machine), Value(image, document, "image"))


def _flattened(document: toml.Document, table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Value]]:
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _flattened(document, value, f"{key}.")
        else:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            yield key, Value(text, document, f"annotations.{key}")


def _problems(document: toml.Document) -> Iterator[ConfigError]:
    for key, value in document.data.items():
        if key not in KEYS:
            yield document.error(f'unknown key "{key}"', key, remedy=did_you_mean(key, KEYS))
        elif not isinstance(value, KEYS[key]):
            expected = " or ".join(TYPE_NAMES[kind] for kind in KEYS[key])
            yield document.error(f"{key} must be {expected}, not {value!r}", key, remedy="correct the value")
        else:
            yield from _inner_problems(document, key, value)


def _inner_problems(document: toml.Document, key: str, value: Any) -> Iterator[ConfigError]:  # noqa: ANN401 - as in TOML
    if key == "start":
        if not schema.TABLES.holds(value):
            yield document.error("start must be tables", key, remedy="write [[start]] and below it command = ...")
        yield from schema.step_problems(document, key, value)
    elif key == "overlay":
        yield from schema.problems(document, key, value, {"size": schema.TEXT, "directory": schema.TEXT})
    elif key == "require":
        yield from schema.problems(document, key, value, schema.REQUIREMENTS)
    elif isinstance(value, list):
        yield from _element_problems(document, key, value)
    elif key == "image" and isinstance(value, dict):
        yield from _image_problems(document, value)
    elif key == "env":
        yield from _variable_problems(document, value)
    elif key == "annotations":
        yield from _annotation_problems(document, value, "annotations.")


def _element_problems(document: toml.Document, key: str, elements: list[Any]) -> Iterator[ConfigError]:
    for index, element in enumerate(elements):
        if not isinstance(element, str):
            yield document.error(
                f"{key} must hold strings, not {element!r}", f"{key}[{index}]", remedy="put it in quotes"
            )


def _image_problems(document: toml.Document, table: Mapping[str, Any]) -> Iterator[ConfigError]:
    if not table:
        yield document.error("image is an empty table", "image", remedy="give image.aarch64, image.x86_64 or both")
    for name, value in table.items():
        key = f"image.{name}"
        if name not in ARCHITECTURES:
            yield document.error(f'unknown architecture "{name}"', key, remedy=did_you_mean(name, ARCHITECTURES))
        elif not isinstance(value, str):
            yield document.error(f"{key} must be a string, not {value!r}", key, remedy="correct the value")


def _variable_problems(document: toml.Document, table: Mapping[str, Any]) -> Iterator[ConfigError]:
    for name, value in table.items():
        if not ENV_NAME.match(name):
            yield document.error(
                f'"{name}" is not the name of a variable', f"env.{name}", remedy="use letters, digits and _"
            )
        elif not isinstance(value, str):
            yield document.error(
                f"variable {name} must be a string, not {value!r}",
                f"env.{name}",
                remedy=f'put it in quotes: {name} = "{value}"',
            )


def _annotation_problems(document: toml.Document, table: Mapping[str, Any], prefix: str) -> Iterator[ConfigError]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _annotation_problems(document, value, f"{prefix}{name}.")
        elif not isinstance(value, str | bool | int):
            yield document.error(
                f"an annotation must be a string, not {value!r}", f"{prefix}{name}", remedy="put it in quotes"
            )
