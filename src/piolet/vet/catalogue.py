"""Which checks and which protocols there are."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from piolet.core import plugins
from piolet.core.errors import PioletError, UsageError
from piolet.core.nouns import Finding
from piolet.core.settings import Settings
from piolet.core.text import did_you_mean
from piolet.vet.check import GROUP, Check

SHIPPED = Path(__file__).parent / "protocols"


@dataclass(frozen=True, slots=True)
class Registered:
    """A check and the reference by which nodes find it."""

    check: Check[Any, Any]
    reference: str


def check_types() -> tuple[str, ...]:
    """Return the types of all registered checks."""
    return plugins.names(GROUP)


def registered(check_type: str) -> Registered:
    """Load one check.

    Raises:
        UsageError: there is no such type.
        PioletError: its module does not load.
    """
    found = plugins.load(GROUP, only=[check_type])
    if found.broken:
        broken = found.broken[0]
        raise PioletError(f"{broken.subject} {broken.reason}", remedy=broken.suggested_action)
    if check_type not in found.loaded:
        raise UsageError(f'no check has the type "{check_type}"', remedy=did_you_mean(check_type, check_types()))
    reference = next(entry.value for entry in entry_points(group=GROUP) if entry.name == check_type)
    return Registered(found.loaded[check_type], reference)


def all_checks() -> tuple[list[Check[Any, Any]], tuple[Finding, ...]]:
    """Return every check that loads, and a finding for each that does not."""
    found = plugins.load(GROUP)
    return [found.loaded[name] for name in sorted(found.loaded)], found.broken


def protocol_directories(settings: Settings) -> tuple[Path, ...]:
    """Return where protocols are looked for by name: the site's directories, then the shipped one."""
    return (*settings.vet.protocol_path, SHIPPED)


def protocols(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield name and path of each protocol that can be given by name; the first of a name wins."""
    seen: set[str] = set()
    for directory in protocol_directories(settings):
        for path in sorted(directory.glob("*.yaml")):
            if path.stem not in seen:
                seen.add(path.stem)
                yield path.stem, path


def find_protocol(name: str, settings: Settings) -> Path:
    """Return the file of the protocol `name`: a path if it holds a slash or begins with a dot, else a known name.

    Raises:
        UsageError: there is none.
    """
    if "/" in name or name.startswith("."):
        path = Path(name)
        if path.is_file():
            return path
        raise UsageError("there is no such protocol file", where=name, remedy="check the path, or give a known name")
    known = dict(protocols(settings))
    if name in known:
        return known[name]
    where = ":".join(map(str, protocol_directories(settings)))
    raise UsageError(f'no protocol is called "{name}"', where=where, remedy=_other(name, known))


def _other(name: str, known: dict[str, Path]) -> str:
    if Path(name).is_file():
        return f"to use the file of that name here, write ./{name}"
    return did_you_mean(name, known)


@dataclass(frozen=True, slots=True)
class Explained:
    """A check in words; `parameters` are rows of name, kind and default."""

    type: str
    summary: str
    source: str
    text: str
    parameters: tuple[tuple[str, str, str], ...]


def explain(check_type: str) -> Explained:
    """Describe one check from its own documentation; errors as of `registered`."""
    check = registered(check_type).check
    rows = tuple(
        (each.name, _kind(each.type), "required" if each.default is MISSING else str(each.default))
        for each in fields(check.parameters)
    )
    return Explained(check.name, check.summary, check.source, inspect.getdoc(check.parameters) or "", rows)


def _kind(annotation: object) -> str:
    """Return a type as users read it: without the bounds, which the description gives."""
    return re.sub(r"Annotated\[(.*?)(?:, \w+\([^()]*\))+\]", r"\1", str(annotation))
