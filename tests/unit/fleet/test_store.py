"""The ledger's databases: the same in SQLite and PostgreSQL, brought up from every earlier form."""

from __future__ import annotations

import sqlite3
import uuid

import pytest
from sqlalchemy import text

from piolet.core.errors import ConfigError, Refused, StorageError
from piolet.fleet import center, ledger, policy, store
from piolet.fleet.evidence import Evidence, Kind, made_id
from piolet.fleet.ledger import Instruction, Order

SHIPPED = policy.load()


def xid(node: str, number: int) -> Evidence:
    return Evidence(made_id(node, number), 10**18 + number, Kind.XID, "79", node, gpu="GPU-a", job=str(number))


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def where(request, tmp_path) -> str:
    if request.param == "SQLite":
        return str(tmp_path / "fleet.db")
    return request.getfixturevalue("server").new(f"fleet-{uuid.uuid4().hex}")


def test_what_is_gathered_is_there_again_and_the_chain_holds(where) -> None:
    with center.opened(where, SHIPPED) as opened:
        opened.gather([xid("n1", 1), xid("n1", 2), xid("n1", 1)], 40)
    assert center.look(where).node("n1").wanted
    count, last = center.verify_ledger(where)
    with store.opened(where) as found:
        ((_, newest),) = found.rows(count - 1)
        assert (found.last(), newest) == (count, last)


def test_one_process_decides_at_a_time_and_the_next_one_after_it(where) -> None:
    with center.opened(where, SHIPPED), pytest.raises(Refused, match="another process"), center.opened(where, SHIPPED):
        pass
    with center.opened(where, SHIPPED) as opened:
        opened.instruct(Instruction(Order.HOLD, "n1", "ann"))
    assert center.verify_ledger(where)[0] == 1


def test_a_number_that_is_taken_is_refused_and_nothing_is_written(where) -> None:
    with center.opened(where, SHIPPED) as opened:
        opened.gather([xid("n1", 1)], 40)
        before = opened.store.last()
        entries = ledger.append([xid("n2", 1)], 1, None)
        with pytest.raises(StorageError, match="refuses"):
            opened.store.append([*ledger.append([xid("n3", 3)], 1, opened.fleet.last), *entries])
        assert opened.store.last() == before


def test_who_lost_the_lease_cannot_write(server) -> None:
    url = server.new(f"fleet-{uuid.uuid4().hex}")
    with center.opened(url, SHIPPED) as first:
        first.gather([xid("n1", 1)], 40)
        with first.store.engine.begin() as other:
            other.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
            )
        with pytest.raises(StorageError, match=r"terminat|closed|lost"):
            first.gather([xid("n1", 2)], 40)
        with center.opened(url, SHIPPED) as second:
            second.gather([xid("n1", 2)], 40)
        with pytest.raises(StorageError, match="lease was lost"):
            first.gather([xid("n1", 3)], 40)
    assert center.verify_ledger(url)[0] == center.look(url).last.seq


def test_a_database_of_the_first_form_is_brought_up_and_keeps_its_entries(tmp_path) -> None:
    path = tmp_path / "fleet.db"
    (entry,) = ledger.append([xid("n1", 1)], 5, None)
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE ledger (seq INTEGER NOT NULL PRIMARY KEY, text TEXT NOT NULL, hash TEXT NOT NULL)")
        old.execute("INSERT INTO ledger VALUES (1, ?, ?)", (entry.text, entry.hash))
    old.close()
    with store.opened(path) as found:
        found.add_token({"name": "a", "hash": "h", "scopes": "read", "nodes": ""})
        assert [*found.rows()] == [(entry.text, entry.hash)]
    with store.opened(path) as again:
        assert [row["name"] for row in again.tokens()] == ["a"]


def test_a_database_of_a_later_version_is_left_alone(where) -> None:
    with store.opened(where) as found, found.engine.begin() as connection:
        connection.execute(text("UPDATE schema_version SET version = 99"))
    with pytest.raises(Refused, match="version 99"), store.opened(where):
        pass


@pytest.mark.parametrize("address", ["mysql://host/fleet", "://"])
def test_an_address_that_is_none_is_one_clear_error(address) -> None:
    with pytest.raises(ConfigError, match="not the address of a database"), store.opened(address):
        pass


def test_a_server_that_is_not_there_is_one_clear_error_without_the_password() -> None:
    with (
        pytest.raises(StorageError, match="connection") as caught,
        store.opened("postgresql://fleet:secret@127.0.0.1:1/fleet"),
    ):
        pass
    assert "secret" not in str(caught.value)
