"""The directory of a service on Slurm, on a file system that nodes and gateways share.

<root>/services/<project>/<service>/
  wanted.json               what is wanted now: which generation, how many replicas, until when (Wanted)
  <generation>/             the service.toml and the batch scripts of one deployment, never changed
  jobs/<job>.json           what a job of the service says of itself (Attempt)
  endpoints/<job>.json      where requests can go now, rewritten after every probe that was answered (Endpoint)

Every file has one writer. Whether an endpoint is fresh is judged by whether its `beat` goes on, not by clocks.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from piolet.core.errors import ParseError, StorageError, storage_errors
from piolet.core.files import write_text
from piolet.core.settings import Settings
from piolet.logbook import layout

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of a service; with no replicas, its jobs end."""

    generation: int
    replicas: int
    expires: date | None = None

    def holds(self, replica: int, today: date) -> bool:
        """Tell whether a job of this replica is to go on as long as nothing newer serves in its place."""
        expired = self.expires is not None and today > self.expires
        return replica < self.replicas and not expired


@dataclass(frozen=True, slots=True)
class Attempt:
    """A job of a service: `ready_ns` is when it first answered, `failures` how many before it in a row never did."""

    job: int
    generation: int
    replica: int
    node: str
    log: str
    began_ns: int
    failures: int = 0
    ready_ns: int | None = None
    ended: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a replica answers, and the key that it wants to hear."""

    job: int
    generation: int
    replica: int
    host: str
    port: int
    key: str
    beat: int
    period_s: int


@dataclass(frozen=True, slots=True)
class Place:
    """The directory of a service."""

    path: Path

    @property
    def wanted(self) -> Path:
        """What is wanted."""
        return self.path / "wanted.json"

    def generation(self, number: int) -> Path:
        """Return the directory of a deployment."""
        return self.path / str(number)

    def newest_generation(self) -> int:
        """Return the number of the newest deployment, 0 before the first."""
        return max((int(path.name) for path in self.path.glob("[0-9]*")), default=0)

    def script(self, generation: int, replica: int) -> Path:
        """Return the batch script of a replica."""
        return self.generation(generation) / f"replica-{replica}.sh"

    def attempt(self, job: int) -> Path:
        """Return what a job says of itself."""
        return self.path / "jobs" / f"{job}.json"

    def endpoint(self, job: int) -> Path:
        """Return where a job can be reached, while it can."""
        return self.path / "endpoints" / f"{job}.json"

    def read_wanted(self) -> Wanted | None:
        """Return what is wanted; None if the service was never deployed."""
        return read(self.wanted, Wanted) if self.wanted.is_file() else None

    def attempts(self) -> list[Attempt]:
        """Return what its jobs said of themselves, by job."""
        return sorted(_all(self.path / "jobs", Attempt), key=lambda each: each.job)

    def endpoints(self) -> list[Endpoint]:
        """Return where requests can go, by job; the reader finds out which are fresh."""
        return sorted(_all(self.path / "endpoints", Endpoint), key=lambda each: each.job)


def of(settings: Settings, project: str, service: str) -> Place:
    """Return the directory of a service of this user."""
    return Place(layout.root(settings) / "services" / project / service)


def known(settings: Settings, project: str = "") -> list[tuple[str, str]]:
    """Return project and name of every service of this user on Slurm."""
    found = (layout.root(settings) / "services").glob(f"{project or '*'}/*/wanted.json")
    return sorted((path.parts[-3], path.parts[-2]) for path in found)


def write(path: Path, value: Wanted | Attempt | Endpoint) -> None:
    """Write a record for the user and its group, which a gateway may belong to: an endpoint holds a key."""
    write_text(path, json.dumps(asdict(value), default=str) + "\n", mode=0o640)


def read(path: Path, kind: type[T]) -> T:
    """Read a record.

    Raises:
        ParseError: it is none.
        StorageError: it cannot be read.
    """
    with storage_errors(path, "read"):
        content = path.read_bytes()
    try:
        found: T = _adapters()[kind].validate_json(content, strict=True)
    except ValueError as error:
        raise ParseError(f"not a record of a service: {error}", source=str(path)) from error
    return found


@cache
def _adapters() -> dict[type, Any]:
    from pydantic import TypeAdapter  # noqa: PLC0415 - slow to import

    return {kind: TypeAdapter(kind) for kind in (Wanted, Attempt, Endpoint)}


def _all(directory: Path, kind: type[T]) -> Iterator[T]:
    """Yield the records of a directory; a foreign one is none, and one that goes while it is read is gone."""
    for path in directory.glob("[0-9]*.json"):
        try:
            yield read(path, kind)
        except ParseError:
            continue
        except StorageError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise


def tail(path: Path, lines: int) -> str:
    """Return the last lines of a log; nothing if the file is not there yet."""
    if not path.is_file():
        return ""
    with storage_errors(path, "read"), path.open(encoding="utf-8", errors="replace") as log:
        return "".join(deque(log, maxlen=lines))
