"""The store: the ledger in a SQLite database, appended to by one process at a time.

SQLAlchemy Core; nothing here knows what entries mean. A process that decides holds the lease (`acting`): a lock on a
file beside the database, which ends with the process and does not depend on any clock.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text, create_engine, event, insert, select
from sqlalchemy.exc import DatabaseError

from piolet.core.errors import Refused, StorageError, storage_errors
from piolet.fleet.ledger import Entry

_METADATA = MetaData()
_LEDGER = Table(
    "ledger",
    _METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("hash", Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Store:
    """A ledger on disk."""

    path: Path
    engine: Engine

    def rows(self, after: int = 0) -> Iterator[tuple[str, str]]:
        """Yield (text, hash) of every entry after number `after`, in order."""
        query = select(_LEDGER.c.text, _LEDGER.c.hash).where(_LEDGER.c.seq > after).order_by(_LEDGER.c.seq)
        with _database_errors(self.path), self.engine.connect() as connection:
            found = connection.execution_options(yield_per=5000).execute(query)
            yield from ((text, digest) for text, digest in found)

    def append(self, entries: Sequence[Entry]) -> None:
        """Write `entries`, all or none; an entry whose number is taken is a StorageError, and nothing is written."""
        if entries:
            with _database_errors(self.path), self.engine.begin() as connection:
                connection.execute(
                    insert(_LEDGER), [{"seq": one.seq, "text": one.text, "hash": one.hash} for one in entries]
                )

    def close(self) -> None:
        """Close the database."""
        self.engine.dispose()


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    """Open the database at `path`, and make it if it is not there."""
    with storage_errors(path, "create the fleet's database"):
        path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(f"sqlite:///{path}")
    event.listen(engine, "connect", _prepare)
    store = Store(path, engine)
    try:
        with _database_errors(path):
            _METADATA.create_all(engine)
        yield store
    finally:
        store.close()


@contextmanager
def acting(path: Path) -> Iterator[None]:
    """Hold the lease of the fleet at `path`.

    Raises:
        Refused: another process holds it.
    """
    lock = path.with_name(path.name + ".lease")
    with storage_errors(lock, "take the fleet's lease"):
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = lock.open("a")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(
                "another process is deciding for this fleet",
                where=str(lock),
                remedy="wait for it to end; only one may act at a time",
            ) from error
        yield


def _prepare(connection: object, _record: object) -> None:
    """Let SQLite tell a commit only when it is on the disk, and readers go on meanwhile."""
    cursor = connection.cursor()  # type: ignore[attr-defined] # a DBAPI connection
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


@contextmanager
def _database_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        raise StorageError(
            f"the fleet's database refuses: {error.orig}",
            where=str(path),
            remedy="check its permissions and free space, then `piolet fleet ledger verify`",
        ) from error
