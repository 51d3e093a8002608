"""Hooks: what an annotation of an EDF switches on, as data. One TOML file each; the first directory that has it wins.

annotation = "com.hooks.cxi"              # NAME.enabled switches it, and so does any key below it
summary = "Slingshot: libfabric of the node"
implies = ["com.hooks.other"]             # hooks that it switches on
writable = true                           # it needs a writable container
libraries = ["libfabric.so.1"]            # of the node, with what they need; `?` at the end: if the node has it
programs = ["/usr/bin/fi_info?"]          # likewise, at the same path
mounts = ["/opt/net/${variant}:/opt/net:ro"]   # as in EDFs; ${key} is the hook's own key
devices = ["nvidia.com/gpu=all"]          # CDI devices, or paths of /dev, which must be there
[keys.variant]                            # keys below the annotation: default, choices, path; without default: required
[env]  [derive]  [[start]]  [[stop]]  [require]
[when]                                    # architectures, image_variable: it is left out elsewhere
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piolet.core import toml
from piolet.core.errors import ConfigError
from piolet.core.problems import raise_all
from piolet.env import schema
from piolet.env.edf import ENV_NAME, Value
from piolet.env.lookup import Context

SHIPPED = Path(__file__).parent / "hooks.d"
FIELDS = {
    "annotation": schema.TEXT,
    "switch": schema.TEXT,
    "summary": schema.TEXT,
    "implies": schema.TEXTS,
    "writable": schema.SWITCH,
    "libraries": schema.TEXTS,
    "programs": schema.TEXTS,
    "mounts": schema.TEXTS,
    "devices": schema.TEXTS,
    "keys": schema.TABLE,
    "env": schema.TEXT_TABLE,
    "derive": schema.TEXT_TABLE,
    "start": schema.TABLES,
    "stop": schema.TABLES,
    "require": schema.TABLE,
    "when": schema.TABLE,
}
KEY_FIELDS = {"default": schema.TEXT, "choices": schema.TEXTS, "path": schema.SWITCH, "summary": schema.TEXT}
WHEN_FIELDS = {"architectures": schema.TEXTS, "image_variable": schema.TEXT}
RULES = ("", "copy", "first-node", "port")


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook. `annotation` is the prefix of its keys, `switch` the annotation that switches it."""

    name: str
    document: toml.Document

    @property
    def data(self) -> Mapping[str, Any]:
        """The file's values."""
        return self.document.data

    @property
    def path(self) -> Path:
        """The file."""
        return self.document.path

    @property
    def summary(self) -> str:
        """What it does."""
        return str(self.data["summary"])

    @property
    def annotation(self) -> str:
        """The prefix of its keys; empty for one that is a switch only."""
        return str(self.data.get("annotation", ""))

    @property
    def switch(self) -> str:
        """The annotation that switches it."""
        return str(self.data.get("switch") or f"{self.annotation}.enabled")

    @property
    def annotations(self) -> dict[str, str]:
        """Its keys by the full names of their annotations, without the switch."""
        return {f"{self.annotation}.{key}": key for key in self.data.get("keys", {})}

    def values(self, field: str) -> Iterator[Value]:
        """Yield the elements of an array, or the values of a table, each with its place."""
        found = self.data.get(field, [])
        if isinstance(found, dict):
            for name, value in found.items():
                yield Value(value, self.document, f"{field}.{name}")
        else:
            for index, value in enumerate(found):
                yield Value(value, self.document, f"{field}[{index}]")


def directories(context: Context) -> tuple[Path, ...]:
    """Return where hooks are looked for: the user's, the site's, those that are shipped."""
    home = context.environ.get("XDG_CONFIG_HOME") or Path(context.environ.get("HOME", "/nonexistent")) / ".config"
    return (Path(home) / "piolet/hooks.d", *context.settings.env.hooks_path, SHIPPED)


def all_hooks(context: Context) -> tuple[Hook, ...]:
    """Return every hook, by name.

    Raises:
        ConfigError: a file is wrong; it is never left out, since an environment may need it.
    """
    found: dict[str, Path] = {}
    for directory in directories(context):
        paths = sorted(directory.glob("*.toml"))
        context.used.extend((directory, *paths))
        for path in paths:
            found.setdefault(path.stem, path)
    return tuple(read(path) for _, path in sorted(found.items()))


def read(path: Path) -> Hook:
    """Read and check the hook at `path`; all problems come as one error."""
    document = toml.read(path)
    raise_all(list(_problems(document)), "the hook")
    return Hook(path.stem, document)


def _problems(document: toml.Document) -> Iterator[ConfigError]:
    data = document.data
    yield from schema.problems(document, "", data, FIELDS, ("summary",))
    if ("annotation" in data) == ("switch" in data):
        yield document.error("a hook has an annotation or a switch", "", remedy="give one of the two")
    for name, key in _table(data, "keys").items():
        yield from schema.problems(document, f"keys.{name}", key if isinstance(key, dict) else {}, KEY_FIELDS)
    for field, fields in (("require", schema.REQUIREMENTS), ("when", WHEN_FIELDS)):
        if isinstance(data.get(field), dict):
            yield from schema.problems(document, field, data[field], fields)
    for field in ("start", "stop"):
        yield from schema.step_problems(document, field, data.get(field))
    yield from _name_problems(document)


def _name_problems(document: toml.Document) -> Iterator[ConfigError]:
    for field in ("env", "derive"):
        for name, text in _table(document.data, field).items():
            if not ENV_NAME.match(name):
                yield document.error(f'"{name}" is not the name of a variable', f"{field}.{name}", remedy="correct it")
            if field == "derive" and isinstance(text, str) and not _is_rule(text):
                remedy = "write VARIABLE, or `first-node VARIABLE`, or `port VARIABLE`"
                yield document.error(f"{text!r} derives nothing", f"{field}.{name}", remedy=remedy)


def _table(data: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """Return a table of the file; empty if it is none, which is told elsewhere."""
    found = data.get(field)
    return found if isinstance(found, dict) else {}


def _is_rule(text: str) -> bool:
    rule, _, source = text.rpartition(" ")
    return rule in RULES and bool(ENV_NAME.match(source))
