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
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from piolet.core import toml
from piolet.core.errors import ConfigError
from piolet.core.text import did_you_mean


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EnvSettings(_Section):
    """User environments."""

    search_path: tuple[Path, ...] = Field((), description="directories with EDF files, after the user's own")
    images: Path | None = Field(None, description="directory of image names, for EDFs that give a bare file name")
    mounts: tuple[str, ...] = Field((), description="mounts that the site adds to every container")
    arch: Literal["aarch64", "x86_64"] | None = Field(
        None, description="architecture of the nodes, for EDFs with an image for each; none: that of this machine"
    )


class RunSettings(_Section):
    """What `piolet run` asks of Slurm when the command line does not say."""

    partition: str = Field("", description="partition to submit to; empty for Slurm's default")
    account: str = Field("", description="account to charge; empty for Slurm's default")
    time_limit: str = Field("", description="time limit in Slurm's form; empty for the partition's default")
    gpus_per_node: int | None = Field(None, ge=0, description="GPUs to ask for on each node; none asks for all")


class RecordSettings(_Section):
    """The recorder."""

    interval_s: float = Field(1.0, ge=0.1, le=60, description="seconds between samples")
    flush_s: float = Field(5.0, ge=1, le=300, description="seconds of samples that a kill may lose")
    kernel_log: Path = Field(Path("/dev/kmsg"), description="kernel log to read Xid messages from")


class VetSettings(_Section):
    """Vetting of nodes."""

    protocol_path: tuple[Path, ...] = Field((), description="directories with protocols of the site")
    timeout_s: float = Field(60.0, gt=0, description="seconds after which a silent node is unknown")


class LabSettings(_Section):
    """The virtual cluster."""

    directory: Path = Field(Path("/var/lib/piolet/lab"), description="where labs keep their files")


class Settings(_Section):
    """Every setting there is."""

    root: Path | None = Field(
        None, description="root of all logbooks; none: $SCRATCH/piolet, else the user's data directory"
    )
    cluster: str = Field("", description="name of the cluster in logbook paths; empty asks Slurm")
    env: EnvSettings = EnvSettings()
    run: RunSettings = RunSettings()
    record: RecordSettings = RecordSettings()
    vet: VetSettings = VetSettings()
    lab: LabSettings = LabSettings()


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
    return tuple(_keys(Settings, ""))


def describe(key: str) -> str:
    """Return the one-line description of a dotted key."""
    return _field(key).description or ""


def _field(key: str) -> FieldInfo:
    model: type[BaseModel] = Settings
    *sections, last = key.split(".")
    for section in sections:
        model = _section(model.model_fields[section].annotation) or model
    return model.model_fields[last]


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, info in model.model_fields.items():
        section = _section(info.annotation)
        if section:
            yield from _keys(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _section(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - any type annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


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
    for key in known_keys():
        variable = "PIOLET_" + key.upper().replace(".", "_")
        text = environ.get(variable)
        if text:
            yield key, Value(_from_text(key, text), f"environment {variable}", f"${variable}")


def _from_text(key: str, text: str) -> str | list[str]:
    """Split the text of a list: paths at colons as in PATH, everything else at commas."""
    elements = get_args(_field(key).annotation)
    if Ellipsis not in elements:
        return text
    return text.split(":" if Path in elements else ",")


def _validated(values: Mapping[str, Value]) -> Settings:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        table = tree
        for section in sections:
            table = table.setdefault(section, {})
        table[last] = value.value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise _config_error(error, values) from error


def _config_error(error: ValidationError, values: Mapping[str, Value]) -> ConfigError:
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"]]
    key = next((k for n in range(len(parts), 0, -1) if (k := ".".join(parts[:n])) in values), ".".join(parts))
    value = values.get(key)
    return ConfigError(
        f"{key}: {first['msg']} (got {first['input']!r})",
        path=value.path if value else "configuration",
        key=key,
        line=value.line if value else None,
        remedy=f"it is the {describe(key)}" if key in known_keys() else "correct the value",
    )


def _get(settings: BaseModel, key: str) -> Any:  # noqa: ANN401 - settings have many types
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _shown(value: Any) -> str:  # noqa: ANN401 - settings have many types
    if isinstance(value, tuple):
        return ":".join(str(part) for part in value)
    return "" if value is None else str(value)
