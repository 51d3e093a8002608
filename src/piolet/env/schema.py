"""Tables of TOML files by the fields they may have: what is unknown, wrong or missing is told with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from piolet.core import toml
from piolet.core.errors import ConfigError
from piolet.core.text import did_you_mean


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: what it is for people, and whether a value is one."""

    name: str
    holds: Callable[[Any], bool]


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _text_table(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


TEXT = Kind("a string", lambda value: isinstance(value, str) and bool(value))
TEXTS = Kind("an array of strings", _texts)
COMMAND = Kind(
    "a string for the shell, or an array of words", lambda value: (TEXT.holds(value) or _texts(value)) and bool(value)
)
SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
SECONDS = Kind(
    "a whole number of seconds above 0",
    lambda value: isinstance(value, int) and not isinstance(value, bool) and value > 0,
)
TEXT_TABLE = Kind("a table of strings", _text_table)
TABLES = Kind(
    "an array of tables", lambda value: isinstance(value, list) and all(isinstance(one, dict) for one in value)
)
TABLE = Kind("a table", lambda value: isinstance(value, dict))


def choice(*words: str) -> Kind:
    """Return the kind of one of `words`."""
    return Kind(f"one of {', '.join(words)}", lambda value: value in words)


STEP = {"command": COMMAND, "per": choice("node", "task"), "timeout_s": SECONDS}
REQUIREMENTS = {
    "devices": TEXTS,
    "paths": TEXTS,
    "libraries": TEXTS,
    "variables": TEXTS,
    "driver": TEXT,
    "nccl_plugin": SWITCH,
}


def problems(
    document: toml.Document,
    key: str,
    table: Mapping[str, Any],
    fields: Mapping[str, Kind],
    required: tuple[str, ...] = (),
) -> Iterator[ConfigError]:
    """Yield what is wrong with the table at `key` (empty: the whole file)."""
    prefix = f"{key}." if key else ""
    for name in required:
        if name not in table:
            yield document.error(f"{name} is missing", key, remedy=f"give {prefix}{name}")
    for name, value in table.items():
        if name not in fields:
            yield document.error(f'unknown key "{prefix}{name}"', f"{prefix}{name}", remedy=did_you_mean(name, fields))
        elif not fields[name].holds(value):
            yield document.error(
                f"{prefix}{name} must be {fields[name].name}, not {value!r}",
                f"{prefix}{name}",
                remedy="correct the value",
            )


def step_problems(document: toml.Document, key: str, steps: Any) -> Iterator[ConfigError]:  # noqa: ANN401 - as in TOML
    """Yield what is wrong with an array of commands, as [[start]]."""
    for index, step in enumerate(steps if TABLES.holds(steps) else ()):
        yield from problems(document, f"{key}[{index}]", step, STEP, ("command",))
