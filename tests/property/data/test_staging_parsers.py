"""Whatever comes over the network of a staging, or out of its step, is taken or refused as documented."""

import json
import socket
import threading
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piolet.core.nodeset import NodeSet
from piolet.data.staging import wire
from piolet.data.staging.node import MARKER
from piolet.data.staging.session import Session
from piolet.data.staging.store import Store
from piolet.data.staging.tree import PIECE_BYTES, Entry, Tree

SECRET = bytes(range(32))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A node that has a file of three bytes."""
    root = tmp_path_factory.mktemp("staged") / "file"
    root.write_bytes(b"abc")
    with closing(wire.listener("127.0.0.1")) as listening:
        store = Store(Tree((Entry("", 0o100644, 3, 0),)), root, SECRET, whole=True)
        threading.Thread(target=wire.serve, args=(listening, SECRET, store), daemon=True).start()
        yield listening.getsockname()


@settings(deadline=None, max_examples=30)
@given(said=st.binary(max_size=200))
def test_a_stranger_is_told_nothing(address, said):
    with socket.create_connection(address) as connection:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        heard = b"".join(iter(lambda: connection.recv(4096), b""))
    assert len(heard) == 32, "the nonce"


@settings(deadline=None, max_examples=30)
@given(first=st.one_of(st.integers(-(2**63), -2), st.integers(1, 2**63 - 1)))
def test_who_knows_the_secret_gets_no_piece_that_there_is_not(address, first):
    with pytest.raises(OSError, match="ended"):
        next(wire.pieces(address, SECRET, first))


def test_who_knows_the_secret_gets_the_piece_that_there_is(address):
    assert next(wire.pieces(address, SECRET, 0)).content == b"abc"


@settings(deadline=None, max_examples=30)
@given(
    said=st.one_of(
        st.binary(max_size=200), st.integers(0, 2**32 - 1).map(lambda length: wire._HEADER.pack(length, SECRET))
    )
)
def test_what_a_node_sends_ends_in_an_error_and_never_in_a_piece_too_long(said):
    with closing(wire.listener("127.0.0.1")) as listening:
        threading.Thread(target=sending, args=(listening, said), daemon=True).start()
        found = wire.pieces(listening.getsockname(), SECRET, 0, silent_s=5)
        with pytest.raises(OSError):  # noqa: PT011 - which one is the kernel's to say
            assert all(len(piece.content) <= PIECE_BYTES for piece in found)


def sending(listening, said):
    """Prove the secret to the first who comes, then send that."""
    connection, _ = listening.accept()
    with connection:
        own = bytes(32)
        connection.sendall(own)
        theirs, request = wire._received(connection, 32), wire._received(connection, 8)
        wire._received(connection, 32)
        connection.sendall(wire._proof(SECRET, b"server", own, theirs, request) + said)


WORDS = st.dictionaries(st.text(max_size=9), JSON, min_size=1, max_size=3)
SAID = st.tuples(st.one_of(st.sampled_from(["node1", "node2", "node3"]), JSON), WORDS)


@given(
    st.one_of(st.text(max_size=80), SAID.map(lambda said: f"{MARKER}{json.dumps(said[0])}, {json.dumps(said[1])[1:]}"))
)
def test_lines_of_a_step_are_answers_of_its_nodes_or_noise(line):
    session = Session(None, NodeSet("node[1-2]"))
    for node, said in [*session._parsed(line), *session._parsed(f"0: {line}")]:
        assert node in {"node1", "node2"}
        assert isinstance(said, dict)
