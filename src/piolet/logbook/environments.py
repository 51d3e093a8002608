"""The environment of a job as a list of values, from environment.lock.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from piolet.core.errors import ParseError
from piolet.core.files import read_json
from piolet.logbook.layout import Logbook

_NOT_SHOWN = ("schema", "version", "mtime_ns", "plan_sha256")


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
