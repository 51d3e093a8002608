from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.errors import ParseError, PioletError, StorageError
from piolet.core.files import write_json
from piolet.logbook.layout import Logbook
from piolet.record import first_node
from piolet.record.collector import Context, NotApplicable
from piolet.record.collectors.first_node import FILE, FirstNodeCollector

AHEAD_NS = 5 * 10**9


def context(logbook: Logbook, node: str, *nodes: str) -> Context:
    write_json(logbook.job, {"allocation": [{"node": each} for each in nodes]})
    return Context({}, StorageError("none"), node=node, logbook=logbook.path)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers may take as long as a busy machine needs."""
    monkeypatch.setattr(first_node, "_PATIENCE_S", 60.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """The clock of a first node that is five seconds ahead of this one."""
    server = first_node.Server(tmp_path / FILE, "n1", lambda: time.time_ns() + AHEAD_NS)
    yield tmp_path / FILE
    server.close()


def test_a_node_knows_how_far_the_first_nodes_clock_is(server: Path) -> None:
    found = first_node.ask(server)
    assert found is not None
    node, offset = found
    assert node == "n1"
    assert abs(offset.offset_s + AHEAD_NS / 1e9) <= offset.uncertainty_s + 1e-6


def test_who_does_not_know_the_word_gets_no_answer(server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_node, "_PATIENCE_S", 0.1)
    write_json(server, {**first_node.read_json(server), "word": "00" * 16})
    with pytest.raises(PioletError, match="the clock of n1 does not answer"):
        first_node.ask(server)


def test_a_node_asks_once_it_is_known_where(logbook: Logbook) -> None:
    second = FirstNodeCollector(context(logbook, "n2", "n1", "n2"))
    assert second.collect(1) == []
    first = FirstNodeCollector(context(logbook, "n1", "n1", "n2"))
    assert first.collect(1) == []
    ((family, row),) = second.collect(2)
    assert (family, row["time_ns"], row["reference"]) == ("clock", 2, "n1")
    assert abs(row["offset_s"]) <= row["uncertainty_s"] + 1e-6
    assert first._server is not None
    first._server.close()
    (logbook.path / FILE).write_text('{"word": "zz"}')
    with pytest.raises(ParseError, match="not where a clock answers"):
        second.collect(3)


def test_a_job_of_one_node_or_of_unknown_nodes_has_no_first_one(logbook: Logbook) -> None:
    with pytest.raises(NotApplicable, match="one node"):
        FirstNodeCollector(context(logbook, "n1", "n1"))
    logbook.job.write_text("{")
    with pytest.raises(NotApplicable, match="not known"):
        FirstNodeCollector(Context({}, StorageError("none"), node="n1", logbook=logbook.path))


def test_garbage_is_not_answered_and_does_not_end_the_server(server: Path) -> None:
    where = first_node.read_json(server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for size in (0, 1, 39, 40, 41, 1400):
            stranger.sendto(bytes(size), ("127.0.0.1", where["port"]))
    assert first_node.ask(server) is not None


@given(st.integers(-(10**12), 10**12), *[st.integers(0, 10**9)] * 3)
def test_the_offset_is_right_within_its_uncertainty(ahead_ns: int, there_ns: int, held_ns: int, back_ns: int) -> None:
    asked_ns = 1_767_000_000 * 10**9
    received_ns = asked_ns + there_ns + ahead_ns
    answered_ns = received_ns + held_ns
    found = first_node.offset(asked_ns, received_ns, answered_ns, answered_ns - ahead_ns + back_ns)
    assert abs(found.offset_s + ahead_ns / 1e9) <= found.uncertainty_s + 1e-6
