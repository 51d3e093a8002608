"""Lines of a plan that are words: commands, requirements, libraries. From tables of TOML files; pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from piolet.env.edf import Value
from piolet.env.expanding import ExpansionError, expanded

DEFAULT_TIMEOUT_S = 60
NCCL_PLUGIN = "libnccl-net.so"
_MOST_WORDS = 120  # with those before it, a line of the plan has at most 128
_VERSION = re.compile(r"[0-9]+(\.[0-9]+)*\Z")
_REQUIRED = {"devices": "path", "paths": "path", "libraries": "library", "variables": "variable", "driver": "driver"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plan, as its words; docs/reference/plan-format.md has them all."""

    words: tuple[str, ...]
    origin: str

    @property
    def key(self) -> str:
        """What kind of line it is."""
        return self.words[0]

    def shown(self) -> str:
        """Return the line as people read it."""
        return shlex.join(self.words[1:])


def commands(value: Value, by: str, environ: Mapping[str, str], *, stop: bool = False) -> Line:
    """Return the line of a table with `command`, `per` and `timeout_s`; `by` is who asks for it."""
    table: Mapping[str, Any] = value.value
    given = table["command"]
    words = ("/bin/sh", "-c", given) if isinstance(given, str) else tuple(given)
    words = tuple(expand_text(value, word, environ) for word in words)
    if len(words) > _MOST_WORDS or not words[0]:
        raise value.error(f"a command has 1 to {_MOST_WORDS} words", "put it into a script")
    kind = "stop" if stop else f"start-{table.get('per', 'node')}"
    return Line((kind, by, str(table.get("timeout_s", DEFAULT_TIMEOUT_S)), *words), value.origin)


def requirements(value: Value, by: str, environ: Mapping[str, str]) -> Iterator[Line]:
    """Yield the lines of what a field of [require] asks for."""
    field = value.key.rpartition(".")[2]
    if field == "nccl_plugin":
        wanted, kind = ([NCCL_PLUGIN] if value.value else []), "library"
    else:
        wanted, kind = ([value.value] if isinstance(value.value, str) else value.value), _REQUIRED[field]
    for text in wanted:
        what = expand_text(value, text, environ)
        if (kind == "path" and not what.startswith("/")) or not what:
            raise value.error(f"{what!r} is not an absolute path", "write /path; * and ? match names")
        if kind == "driver" and not _VERSION.match(what):
            raise value.error(f"{what!r} is not a version", 'write it as "570" or "570.86.10"')
        yield Line(("require", by, kind, what), value.origin)


def expand_text(value: Value, text: str, environ: Mapping[str, str]) -> str:
    """Return `text`, a part of `value`, with its references replaced."""
    try:
        return expanded(text, environ)
    except ExpansionError as error:
        raise value.error(str(error), error.remedy) from error
