"""What a compilation has looked at, left in the user's cache: while all of it holds, srun needs no Python.

Records end with NUL: a letter and its text. spank/recall.c checks them and takes the plan that stands last.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from piolet.core.errors import StorageError
from piolet.core.files import write_text
from piolet.env import store
from piolet.env.lookup import Context
from piolet.env.plan import ContainerPlan

SETTINGS = ("EDF_PATH", "HOME", "SCRATCH", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
"""Variables that say where things are, besides those that EDFs refer to and PIOLET_*."""


class Seen(Mapping[str, str]):
    """Variables that remember which of them were asked for."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


def remember(name: str, context: Context, plan: ContainerPlan, path: Path) -> None:
    """Leave the records of a plan that was compiled now for environment `name`; without a cache, do nothing.

    An environment whose image passes a gate is compiled each time, since the gate is to be asked each time.
    """
    if context.settings.env.gate or not isinstance(context.environ, Seen):
        return
    text = "\0".join([*_records(name, context, plan, context.environ.names), f"P{path.resolve()}", ""])
    try:
        write_text(_place(name, context), text, mode=0o600)
    except StorageError:
        return


def _place(name: str, context: Context) -> Path:
    cache = context.environ.get("XDG_CACHE_HOME") or f"{context.environ.get('HOME', '/nonexistent')}/.cache"
    key = os.fsencode(f"{name}\n{context.cwd}")
    return Path(cache) / "piolet/compiled" / f"{zlib.crc32(key):08x}"


def _records(name: str, context: Context, plan: ContainerPlan, variables: set[str]) -> Iterator[str]:
    yield f"m{time.time():.0f}"
    yield f"n{name}"
    yield f"c{context.cwd}"
    settings = (f"{name}={value}" for name, value in context.environ.items() if name.startswith("PIOLET_"))
    yield f"p{sum(zlib.crc32(os.fsencode(text)) for text in settings) & 0xFFFFFFFF:x}"
    for variable in sorted({*variables, *SETTINGS}):
        value = context.environ.get(variable)
        yield f"u{variable}" if value is None else f"v{variable}={value}"
    for used in dict.fromkeys([*context.used, Path(__file__)]):
        yield _file(used)
    if plan.image.stored:
        yield f"t{store.store_of(context.settings, context.environ).use(plan.image.stored.digest)}"


def _file(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return f"a{path}"
    return f"s{status.st_size} {status.st_mtime_ns} {path}"
