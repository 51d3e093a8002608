"""The environment of a job: its values, from environment.lock.json, and what held in its containers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piolet.core.errors import ParseError
from piolet.core.files import read_json
from piolet.core.nodeset import NodeSet
from piolet.logbook.layout import Logbook

_NOT_SHOWN = ("schema", "version", "mtime_ns", "plan_sha256")


@dataclass(frozen=True, slots=True)
class Verified:
    """What held in the containers of `nodes`: `kind` and `value` say what, `by` who asked for it.

    `by` is the name of a hook, or `environment` for the EDF itself. `kind` is library, program, path, variable, driver,
    or start: a command that came before the program and ended well.
    """

    by: str
    kind: str
    value: str
    nodes: NodeSet


def environment(logbook: Logbook) -> tuple[tuple[str, str, str], ...]:
    """Return environment.lock.json as (key, value, origin); empty if the job had no environment.

    Tables are flattened with dots; an element of `values` is a key with its value and origin.
    """
    if not logbook.environment_lock.exists():
        return ()
    try:
        content = read_json(logbook.environment_lock)
    except ParseError as error:
        return (("unreadable", error.what, ""),)
    return tuple(_flattened(content, "")) if isinstance(content, dict) else ()


def _flattened(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    for key, value in table.items():
        if key in _NOT_SHOWN:
            continue
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield from (_element(f"{prefix}{key}", element) for element in value)
        elif value not in {None, ""}:
            yield f"{prefix}{key}", str(value), ""


def _element(key: str, element: Any) -> tuple[str, str, str]:  # noqa: ANN401 - JSON is any value
    if not isinstance(element, dict):
        return key, str(element), ""
    return str(element.get("key", key)), str(element.get("value", "")), str(element.get("origin", ""))


def verified_files(logbook: Logbook) -> list[Path]:
    """Return the files that `verified` reads, one a node."""
    return sorted(logbook.verified.glob("*.jsonl"))


def verified(paths: Iterable[Path]) -> tuple[Verified, ...]:
    """Return what held in the containers of a job, by who asked for it; `paths` are those of `verified_files`.

    What several nodes or steps verified is one element, with all of its nodes. A line that is not whole, as a node
    that died leaves it, is left out, and so is a file that cannot be read.
    """
    nodes: dict[tuple[str, str, str], set[str]] = {}
    for path in paths:
        for what, node in _rows(path):
            nodes.setdefault(what, set()).add(node)
    whole = {name for name in set().union(*nodes.values()) if _is_node(name)}
    found = ((what, names & whole) for what, names in sorted(nodes.items()))
    return tuple(Verified(*what, NodeSet(names)) for what, names in found if names)


def _is_node(name: str) -> bool:
    try:
        return len(NodeSet(name)) == 1
    except ParseError:
        return False


def _rows(path: Path) -> Iterator[tuple[tuple[str, str, str], str]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            row = json.loads(line)
            yield (str(row["by"]), str(row["kind"]), str(row["value"])), str(row["node"])
        except (ValueError, TypeError, KeyError):
            continue
