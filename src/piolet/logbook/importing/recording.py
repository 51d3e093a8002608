"""What every importer makes of the files of another tool."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from piolet.core.errors import ParseError, storage_errors

Entry = tuple[str, Mapping[str, Any]]
"""A family and a row of it, with `time_ns` and `node`."""

SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Given:
    """What the user says of a recording, for what it does not say itself; empty or None is not said."""

    job_id: str = ""
    cluster: str = ""
    node: str = ""
    gpu_model: str = ""
    interval_s: float | None = None
    started_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """The samples of a file, and what it says of the job. `rows` may be read once, and raise ParseError while they are.

    `models` is the GPU's model by UUID. `left_out` are metrics that no column is for.
    """

    tool: str
    rows: Iterable[Entry]
    interval_s: float
    job_id: str = ""
    cluster: str = ""
    user: str = ""
    account: str = ""
    name: str = ""
    command: tuple[str, ...] = ()
    started_ns: int | None = None
    ended_ns: int | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()


def text_of(path: Path) -> str:
    """Return a file as text; what is not UTF-8 is replaced."""
    with storage_errors(path, "read"):
        return path.read_text(encoding="utf-8", errors="replace")


def begun_ns(path: Path, given: Given, duration_s: float) -> int:
    """Return when a recording without times began: as the user says, else that it ended when its file did."""
    if given.started_ns is not None:
        return given.started_ns
    with storage_errors(path, "look at"):
        return path.stat().st_mtime_ns - round(duration_s * SECOND_NS)


def wrong(path: Path, what: str, text: str = "") -> ParseError:
    """Return the error for a file that is not what it looked like."""
    return ParseError(what, source=str(path), text=text)
