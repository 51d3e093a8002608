"""Loading the plugins of an interface: one entry-point group each, built-ins registered in the same way.

A plugin that does not load is a Finding, never a crash and never silence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from piolet.core.nouns import Finding, Severity


@dataclass(frozen=True, slots=True)
class Plugins:
    """The plugins of one group: what loaded, by name, and a finding for each that did not."""

    loaded: dict[str, Any]
    broken: tuple[Finding, ...]


def names(group: str) -> tuple[str, ...]:
    """Return the registered names of `group`, without importing anything."""
    return tuple(sorted({entry.name for entry in entry_points(group=group)}))


def load(group: str, *, only: Iterable[str] | None = None) -> Plugins:
    """Import the plugins of `group`, or those named in `only`."""
    wanted = None if only is None else set(only)
    return load_entries(entry for entry in entry_points(group=group) if wanted is None or entry.name in wanted)


def load_entries(entries: Iterable[EntryPoint]) -> Plugins:
    """Import each entry point; what fails becomes a Finding that names it."""
    loaded: dict[str, Any] = {}
    broken: list[Finding] = []
    for entry in sorted(entries, key=lambda entry: entry.name):
        try:
            loaded[entry.name] = entry.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may fail in any way; it becomes a finding
            broken.append(_broken(entry, error))
    return Plugins(loaded, tuple(broken))


def _broken(entry: EntryPoint, error: BaseException) -> Finding:
    return Finding(
        subject=f"plugin {entry.group}:{entry.name}",
        severity=Severity.ERROR,
        reason=f"cannot be loaded: {type(error).__name__}: {error}",
        evidence={"value": entry.value},
        suggested_action=f"fix or uninstall the package that registers {entry.value}",
    )
