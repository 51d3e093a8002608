"""Configuration in four layers, each value with its origin: site file, user file, environment, flags.

    site file     $PIOLET_SITE_CONFIG, else /etc/piolet/config.toml
    user file     <config directory of the user>/piolet/config.toml   (~/.config on Linux)
    environment   PIOLET_ROOT, PIOLET_VET_TIMEOUT_S, ...   (PIOLET_ + the dotted key)
    flags         what the command line says

Lists in the environment are split at commas, paths at colons. Later layers win. Unknown keys and wrong types
are errors that name the file and the line; nothing is guessed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piolet.core import settings as known_settings
from piolet.core import toml
from piolet.core.errors import ConfigError
from piolet.core.settings import Settings
from piolet.core.text import did_you_mean


@dataclass(frozen=True, slots=True)
class Value:
    """A value as one layer gave it, with the place that says so."""

    value: Any
    origin: str
    path: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings in force and, per dotted key, where each came from."""

    settings: Settings
    origins: Mapping[str, str]

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (key, value, origin) for every setting, in the order of their definition."""
        return [(key, _shown(_get(self.settings, key)), self.origins.get(key, "default")) for key in known_keys()]


def load(flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Configuration:
    """Read all layers. `flags` maps dotted keys to values; those that are None were not given.

    Raises:
        ConfigError: a layer has an unknown key or a wrong value.
        StorageError: a file cannot be read, or $PIOLET_SITE_CONFIG names one that is not there.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Value] = {}
    for name, path in (("site file", site_file(environ)), ("user file", user_file(environ))):
        if path.is_file() or (name == "site file" and environ.get("PIOLET_SITE_CONFIG")):
            values |= dict(_file_values(path, name))
    values |= dict(_environment_values(environ))
    values |= {key: Value(value, "flag", "command line") for key, value in (flags or {}).items() if value is not None}
    return Configuration(_validated(values), {key: value.origin for key, value in values.items()})


def site_file(environ: Mapping[str, str]) -> Path:
    """Return the path of the site's configuration file."""
    return Path(environ.get("PIOLET_SITE_CONFIG") or "/etc/piolet/config.toml")


def user_file(environ: Mapping[str, str]) -> Path:
    """Return the path of the user's configuration file."""
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or "/nonexistent") / ".config")
    return Path(base) / "piolet" / "config.toml"


def known_keys() -> tuple[str, ...]:
    """Return every dotted key, in the order of definition."""
    return tuple(known_settings.known())


def describe(key: str) -> str:
    """Return the one-line description of a dotted key."""
    return known_settings.known()[key].description


def _file_values(path: Path, layer: str) -> Iterator[tuple[str, Value]]:
    document = toml.read(path)
    known = set(known_keys())
    for key, value in _flattened(document.data, ""):
        position = document.position(key)
        line = position.line if position else None
        if key not in known:
            raise document.error(f'unknown setting "{key}"', key, remedy=did_you_mean(key, known))
        yield key, Value(value, f"{layer} {path}:{line}", str(path), line)


def _flattened(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _environment_values(environ: Mapping[str, str]) -> Iterator[tuple[str, Value]]:
    for key, known in known_settings.known().items():
        variable = "PIOLET_" + key.upper().replace(".", "_")
        text = environ.get(variable)
        if text:
            yield key, Value(_from_text(known.read, text), f"environment {variable}", f"${variable}")


def _from_text(read: known_settings.Reader, text: str) -> str | list[str]:
    """Split the text of a list: paths at colons as in PATH, everything else at commas."""
    separator = {known_settings.paths: ":", known_settings.texts: ",", known_settings.rates: ","}.get(read)
    return text.split(separator) if separator else text


def _validated(values: Mapping[str, Value]) -> Settings:
    known = known_settings.known()
    read: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f'unknown setting "{key}"', path=value.path, key=key, remedy=did_you_mean(key, known))
        try:
            read[key] = known[key].read(value.value)
        except ValueError as error:
            raise ConfigError(
                f"{key} {error}, not {value.value!r}",
                path=value.path,
                key=key,
                line=value.line,
                remedy=f"it is the {known[key].description}",
            ) from error
    return known_settings.made(read)


def _get(settings: Settings, key: str) -> Any:  # noqa: ANN401 - settings have many types
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _shown(value: Any) -> str:  # noqa: ANN401 - settings have many types
    if isinstance(value, tuple):
        return ":".join(str(part) for part in value)
    return "" if value is None else str(value)
