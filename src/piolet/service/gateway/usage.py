"""What each key used of each service in each month: counted in memory, kept in a database.

SQLAlchemy Core. Counts reach the database every few seconds and when the gateway ends, so that a kill loses the last
few seconds and no request waits for a disk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, select
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.exc import SQLAlchemyError

from piolet.core.errors import StorageError
from piolet.service.gateway.events import Tokens

NONE = Tokens()
Line = tuple[str, str, str]
"""Month as 2027-01, key, service."""

_METADATA = MetaData()
_USAGE = Table(
    "usage",
    _METADATA,
    Column("month", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("service", String, primary_key=True),
    Column("requests", Integer, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Used:
    """Requests that were answered, and their tokens."""

    requests: int = 0
    tokens: Tokens = NONE

    def __add__(self, other: Used) -> Used:
        tokens = Tokens(self.tokens.prompt + other.tokens.prompt, self.tokens.completion + other.tokens.completion)
        return Used(self.requests + other.requests, tokens)


@dataclass(slots=True)
class Usage:
    """The counts of the months and keys so far, and those that the database does not have yet.

    `count`, `taken` and `put_back` are for one thread; only `write` waits for the disk.
    """

    engine: Engine
    path: Path
    spent: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    unkept: defaultdict[Line, Used] = field(default_factory=lambda: defaultdict(Used))

    def count(self, line: Line, tokens: Tokens) -> None:
        """Count one more request."""
        month, key, _ = line
        self.spent[month, key] += tokens.prompt + tokens.completion
        self.unkept[line] += Used(1, tokens)

    def taken(self) -> dict[Line, Used]:
        """Return what the database does not have yet, for `write`."""
        taken, self.unkept = self.unkept, defaultdict(Used)
        return taken

    def put_back(self, taken: dict[Line, Used]) -> None:
        """Keep what could not be written for the next time."""
        for line, used in taken.items():
            self.unkept[line] += used

    def write(self, taken: dict[Line, Used]) -> None:
        """Add to the database, all or nothing.

        Raises:
            StorageError: the database cannot be written.
        """
        with _database_errors(self.path), self.engine.begin() as connection:
            for line, used in taken.items():
                connection.execute(_added(line, used))


def opened(path: Path) -> Usage:
    """Open the database at `path`, and make it if it is not there.

    Raises:
        StorageError: it cannot be read or made.
    """
    with _database_errors(path):
        usage = Usage(create_engine(f"sqlite:///{path}"), path)
        _METADATA.create_all(usage.engine)
        for (month, key, _), used in lines(usage.engine).items():
            usage.spent[month, key] += used.tokens.prompt + used.tokens.completion
    return usage


def lines(engine: Engine) -> dict[Line, Used]:
    """Return what the database has."""
    with engine.connect() as connection:
        rows = connection.execute(select(_USAGE)).all()
    return {(row[0], row[1], row[2]): Used(row[3], Tokens(row[4], row[5])) for row in rows}


def _added(line: Line, used: Used) -> Insert:
    counts = {
        "requests": used.requests,
        "prompt_tokens": used.tokens.prompt,
        "completion_tokens": used.tokens.completion,
    }
    new = insert(_USAGE).values(month=line[0], key=line[1], service=line[2], **counts)
    more = {name: _USAGE.c[name] + count for name, count in counts.items()}
    return new.on_conflict_do_update(index_elements=["month", "key", "service"], set_=more)


@contextmanager
def _database_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StorageError(
            f"the usage cannot be kept: {error}", where=str(path), remedy="check the path, its permissions and space"
        ) from error
