"""The store: the ledger in SQLite or PostgreSQL, appended to by one process at a time.

SQLAlchemy Core; nothing here knows what entries mean. A process that decides holds the lease (`acting`), which ends
with the process and does not depend on any clock: for SQLite a lock on a file beside the database, for PostgreSQL a
lock of the very connection that it writes with, so that who lost the lease cannot write either.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from piolet.core.errors import ConfigError, Refused, StorageError, UsageError, storage_errors
from piolet.fleet.ledger import Entry

Where = Path | str
"""A SQLite file, or the URL of a database: ``postgresql://host/fleet``."""

_METADATA = MetaData()
_VERSION = Table("schema_version", _METADATA, Column("version", Integer, primary_key=True, autoincrement=False))
_LEDGER = Table(
    "ledger",
    _METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("hash", Text, nullable=False),
)
_TOKEN = Table(
    "token",
    _METADATA,
    Column("name", Text, primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("scopes", Text, nullable=False),
    Column("nodes", Text, nullable=False),
)


def _first(connection: Connection) -> None:
    """Databases from before there were versions have this table alone."""
    _LEDGER.create(connection, checkfirst=True)


def _tokens(connection: Connection) -> None:
    _TOKEN.create(connection, checkfirst=True)


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (_first, _tokens)
"""What makes a database of version n one of version n + 1, in a transaction each."""

_LOCK = 0x70696F6C6574  # "piolet": the number of PostgreSQL's advisory lock


@dataclass(frozen=True, slots=True)
class Store:
    """A ledger in a database. `writer` is the connection that holds the lease, if this process does in PostgreSQL."""

    where: Where
    engine: Engine
    writer: Connection | None = None

    def rows(self, after: int = 0) -> Iterator[tuple[str, str]]:
        """Yield (text, hash) of every entry after number `after`, in order."""
        query = select(_LEDGER.c.text, _LEDGER.c.hash).where(_LEDGER.c.seq > after).order_by(_LEDGER.c.seq)
        with _database_errors(self.where), self.engine.connect() as connection:
            found = connection.execution_options(yield_per=5000).execute(query)
            yield from ((text, digest) for text, digest in found)

    def last(self) -> int:
        """Return the number of the newest entry, 0 if there is none."""
        with _database_errors(self.where), self.engine.connect() as connection:
            return connection.execute(select(_LEDGER.c.seq).order_by(_LEDGER.c.seq.desc()).limit(1)).scalar() or 0

    def append(self, entries: Sequence[Entry]) -> None:
        """Write `entries`, all or none; an entry whose number is taken is a StorageError, and nothing is written."""
        if entries:
            with _database_errors(self.where), self._writing() as connection:
                if connection.dialect.name == "postgresql":
                    _copy(connection, entries)
                else:
                    rows = [{"seq": one.seq, "text": one.text, "hash": one.hash} for one in entries]
                    connection.execute(insert(_LEDGER), rows)

    def tokens(self) -> list[Mapping[str, Any]]:
        """Return the rows of the tokens, by name."""
        with _database_errors(self.where), self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(select(_TOKEN).order_by(_TOKEN.c.name)).mappings()]

    def add_token(self, row: Mapping[str, Any]) -> None:
        """Keep a token; a name that is taken is a UsageError."""
        if any(one["name"] == row["name"] for one in self.tokens()):
            raise UsageError(f"there is a token {row['name']} already", remedy="`piolet fleet token revoke` it first")
        with _database_errors(self.where), self.engine.begin() as connection:
            connection.execute(insert(_TOKEN), [dict(row)])

    def drop_token(self, name: str) -> bool:
        """Forget a token, and return whether there was one."""
        with _database_errors(self.where), self.engine.begin() as connection:
            return connection.execute(delete(_TOKEN).where(_TOKEN.c.name == name)).rowcount > 0

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        if self.writer is None:
            with self.engine.begin() as connection:
                yield connection
            return
        if self.writer.invalidated:  # it would connect anew, and without the lease
            raise StorageError("the lease was lost with the connection", where=shown(self.where), remedy="begin anew")
        with self.writer.begin():
            yield self.writer

    @property
    def notes(self) -> Path:
        """The directory in which once.sh keeps what it did, on the machine that acts."""
        path = _file(self.where)
        return path.with_name(f"{path.name}.commands") if path else Path("/var/lib/piolet/fleet.commands")


@contextmanager
def opened(where: Where) -> Iterator[Store]:
    """Open the database at `where`, and bring it to this version's form; a SQLite file is made if it is not there."""
    path = _file(where)
    if path:
        with storage_errors(path, "create the fleet's database"):
            path.parent.mkdir(parents=True, exist_ok=True)
    engine = _engine(where)
    try:
        with _database_errors(where):
            _migrate(engine, where)
        yield Store(where, engine)
    finally:
        engine.dispose()


def exists(where: Where) -> bool:
    """Whether a fleet has been begun at `where`; a file is not made by asking."""
    path = _file(where)
    return path.is_file() if path else True


def shown(where: Where) -> str:
    """Return `where` without a password."""
    return str(where) if _file(where) else make_url(str(where)).render_as_string(hide_password=True)


@contextmanager
def acting(where: Where) -> Iterator[Store]:
    """Open the fleet at `where` and hold its lease.

    Raises:
        Refused: another process holds it.
    """
    path = _file(where)
    if path:
        with _locked(path.with_name(path.name + ".lease")), opened(where) as found:
            yield found
        return
    with opened(where) as found, _database_errors(where), found.engine.connect() as writer:
        if not writer.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}).scalar():
            raise _taken(shown(where))
        writer.commit()  # the lock is the connection's, not the transaction's
        yield replace(found, writer=writer)


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    with storage_errors(lock, "take the fleet's lease"):
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = lock.open("a")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _taken(str(lock)) from error
        yield


def _taken(where: str) -> Refused:
    return Refused(
        "another process is deciding for this fleet",
        where=where,
        remedy="wait for it to end, or if it is `piolet fleet serve`, name it in the setting fleet.service",
    )


def _file(where: Where) -> Path | None:
    return None if "://" in str(where) else Path(where)


def _engine(where: Where) -> Engine:
    if _file(where):
        engine = create_engine(f"sqlite:///{where}")
        event.listen(engine, "connect", _prepare)
        return engine
    try:
        url = make_url(str(where))
    except ArgumentError as error:
        raise _no_address(str(error)) from error
    if url.get_backend_name() != "postgresql":
        raise _no_address(f"{url.get_backend_name()} is not known")
    return create_engine(url.set(drivername="postgresql+psycopg"), poolclass=NullPool)


def _no_address(why: str) -> ConfigError:
    return ConfigError(
        f"not the address of a database: {why}",
        path="settings",
        key="fleet.database",
        remedy="name a file, or postgresql://USER@HOST/DATABASE",
    )


def _migrate(engine: Engine, where: Where) -> None:
    """Bring the database to the newest version, one transaction a step."""
    version = _version(engine)
    if version > len(MIGRATIONS):
        raise Refused(
            f"the database is of version {version}, and this Piolet knows versions up to {len(MIGRATIONS)}",
            where=shown(where),
            remedy="use the Piolet that wrote it, or a newer one",
        )
    for number in range(version, len(MIGRATIONS)):
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK + 1})
            _VERSION.create(connection, checkfirst=True)
            MIGRATIONS[number](connection)
            connection.execute(delete(_VERSION))
            connection.execute(insert(_VERSION), [{"version": number + 1}])


def _version(engine: Engine) -> int:
    with engine.connect() as connection:
        if not inspect(connection).has_table(_VERSION.name):
            return 0
        return connection.execute(select(_VERSION.c.version)).scalar() or 0


def _copy(connection: Connection, entries: Sequence[Entry]) -> None:
    """Append by PostgreSQL's COPY, which takes several times as many rows a second as INSERT."""
    from psycopg import Error  # noqa: PLC0415 - only where there is PostgreSQL

    cursor = connection.connection.cursor()
    try:
        with cursor.copy("COPY ledger (seq, text, hash) FROM STDIN") as copy:
            for one in entries:
                copy.write_row((one.seq, one.text, one.hash))
    except Error as error:
        raise DBAPIError("COPY", None, error) from error
    finally:
        cursor.close()


def _prepare(connection: object, _record: object) -> None:
    """Let SQLite tell a commit only when it is on the disk, and readers go on meanwhile."""
    cursor = connection.cursor()  # type: ignore[attr-defined] # a DBAPI connection
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


@contextmanager
def _database_errors(where: Where) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise StorageError(
            f"the fleet's database refuses: {str(error.orig).strip()}",
            where=shown(where),
            remedy="check that it runs, its permissions and free space, then `piolet fleet ledger verify`",
        ) from error
