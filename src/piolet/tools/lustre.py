"""Lustre's striping with `lfs`: reading a layout back, the command that sets one, the command that migrates a file.

Written to the forms of lfs-getstripe(1), lfs-setstripe(1) and lfs-migrate(1) of Lustre 2.15; never run on a
Lustre file system here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import ParseError
from piolet.core.run import Runner

_TIMEOUT_S = 60.0
_FIELD = re.compile(
    r"^\s*(?:- )?(?P<key>lcme_id|lcme_extent\.e_start|lcme_extent\.e_end|\w*stripe_count|\w*stripe_size):"
)


@dataclass(frozen=True, slots=True)
class Component:
    """A part of a file's layout: up to `end_bytes` of the file (None: to its end), over `stripes` OSTs (-1: all)."""

    end_bytes: int | None
    stripes: int
    stripe_bytes: int | None = None


Layout = tuple[Component, ...]


def set_argv(path: Path, layout: Sequence[Component]) -> list[str]:
    """Return the command that gives `layout` to what will be created in the directory `path`."""
    return ["lfs", "setstripe", *_options(layout), str(path)]


def migrate_argv(path: Path, layout: Sequence[Component]) -> list[str]:
    """Return the command that copies the file at `path` to `layout` in place; nothing may write to it meanwhile."""
    return ["lfs", "migrate", *_options(layout), str(path)]


def _options(layout: Sequence[Component]) -> list[str]:
    options = []
    for component in layout:
        options += ["-E", _short(component.end_bytes), "-c", str(component.stripes)]
        options += ["-S", _short(component.stripe_bytes)] if component.stripe_bytes else []
    return options


def _short(amount: int | None) -> str:
    """Return bytes as lfs takes them, in binary units: ``4M``; -1 is the end of the file."""
    if amount is None:
        return "-1"
    for power, unit in ((30, "G"), (20, "M"), (10, "k")):
        if amount % (1 << power) == 0:
            return f"{amount >> power}{unit}"
    return str(amount)


def get_argv(path: Path) -> list[str]:
    """Return the command that prints the layout of a file, or the default of a directory."""
    return ["lfs", "getstripe", "-d", "-y", str(path)] if path.is_dir() else ["lfs", "getstripe", "-y", str(path)]


def parse_layout(text: str) -> Layout:
    """Parse what `lfs getstripe` prints, plain or as YAML, of one file or directory."""
    components: list[dict[str, str]] = []
    for line in text.splitlines():
        match = _FIELD.match(line)
        if not match:
            continue
        key = match["key"].rpartition("stripe_")[2] if "stripe" in match["key"] else match["key"]
        value = line.partition(":")[2].split()[0] if line.partition(":")[2].split() else ""
        if not components or key == "lcme_id" or key in components[-1]:
            components.append({})
        components[-1][key] = value
        components[-1].update(_others(line))
    try:
        return tuple(_component(fields) for fields in components if "count" in fields)
    except (KeyError, ValueError) as error:
        raise ParseError(f"not a layout: {error}", source="lfs getstripe", text=text) from error


def _others(line: str) -> dict[str, str]:
    """Return the further fields of a line: the default of a directory stands on one line."""
    found = re.findall(r"stripe_(count|size):\s+(-?\d+)", line)
    return dict(found)


def _component(fields: dict[str, str]) -> Component:
    end = fields.get("lcme_extent.e_end", "EOF")
    size = int(fields["size"]) if fields.get("size") else None
    return Component(None if end == "EOF" else int(end), int(fields["count"]), size)


def read_layout(path: Path, runner: Runner) -> Layout:
    """Return the layout of `path` as Lustre has it.

    Raises:
        ToolMissing: there is no lfs here.
        ToolError: `path` is not on Lustre.
    """
    return parse_layout(runner.run(get_argv(path), timeout=_TIMEOUT_S).stdout)
