"""Staging without a cluster: trees as runs of bytes, pieces over loopback, room, and the choice of the way."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piolet.core.errors import Refused, UsageError
from piolet.core.nodeset import NodeSet
from piolet.data.staging import choosing, room, wire
from piolet.data.staging import stage as staging
from piolet.data.staging.choosing import Measured
from piolet.data.staging.node import Order
from piolet.data.staging.session import step_argv
from piolet.data.staging.store import Damaged, Piece, Store, sealed
from piolet.data.staging.tree import PIECE_BYTES, Entry, Tree, scan
from piolet.tools import cgroup

SECRET = bytes(range(32))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two pieces and a half in files that no border of a piece respects, an empty file, a link, a directory."""
    root = tmp_path / "source"
    (root / "deep/er").mkdir(parents=True)
    (root / "a").write_bytes(os.urandom(PIECE_BYTES // 2))
    (root / "deep/b").write_bytes(os.urandom(PIECE_BYTES + 7))
    (root / "deep/er/c").write_bytes(os.urandom(PIECE_BYTES))
    (root / "empty").touch()
    (root / "link").symlink_to("deep/b")
    (root / "a").chmod(0o755)
    (root / "deep").chmod(0o555)
    yield root
    (root / "deep").chmod(0o755)


def copied(tree: Tree, source: Path, target: Path) -> None:
    tree.begin(target)
    for index in range(tree.pieces):
        tree.write(target, index, tree.read(source, index))
    tree.finish(target)


def test_a_tree_is_copied_piece_by_piece_with_modes_times_and_links(source, tmp_path):
    tree = scan(source)
    target = tmp_path / "target"

    copied(tree, source, target)

    assert (tree.pieces, tree.is_directory) == (3, True)
    for path in ("a", "deep/b", "deep/er/c", "empty"):
        assert (target / path).read_bytes() == (source / path).read_bytes()
        assert (target / path).stat().st_mtime_ns == (source / path).stat().st_mtime_ns
    assert (target / "link").readlink() == Path("deep/b")
    assert (target / "a").stat().st_mode & 0o777 == 0o755
    assert (target / "deep").stat().st_mode & 0o777 == 0o755, "the owner can delete the copy"
    assert Tree.from_json(tree.to_json()) == tree
    assert tree.lies_at(target)
    (target / "empty").write_text("changed")
    assert not tree.lies_at(target)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 3 * PIECE_BYTES), max_size=12))
def test_the_pieces_of_any_files_cover_every_byte_once_and_in_order(sizes):
    tree = Tree(
        tuple(Entry(str(number), 0o100644, size, 0) for number, size in enumerate(sizes)) or (Entry("", 0, 0, 0),)
    )
    covered = {entry.path: 0 for entry in tree.files}

    for piece in range(tree.pieces):
        extents = list(tree.extents(piece))
        assert sum(length for *_, length in extents) == (
            PIECE_BYTES if piece < tree.pieces - 1 else tree.size_bytes - piece * PIECE_BYTES
        )
        for entry, offset, length in extents:
            assert offset == covered[entry.path]
            covered[entry.path] += length

    assert covered == {entry.path: entry.size_bytes for entry in tree.files}


def test_what_cannot_be_staged_is_refused_with_a_reason(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Refused, match="neither a file"):
        scan(tmp_path)
    with pytest.raises(UsageError, match="nothing to stage"):
        scan(tmp_path / "absent")
    monkeypatch.setattr("piolet.data.staging.tree.MAX_ENTRIES", 1)
    with pytest.raises(Refused, match="over 1 files") as refusal:
        scan(tmp_path)
    assert "piolet data pack" in refusal.value.remedy


def test_a_source_that_shrinks_meanwhile_is_an_error_and_no_zeros(source):
    tree = scan(source)
    (source / "a").write_bytes(b"short")

    with pytest.raises(OSError, match="changed since it was listed"):
        tree.read(source, 0)


@pytest.fixture
def serving():
    """Serve a store on loopback; gives its address."""
    open_ones = []

    def serve(store: Store, secret: bytes = SECRET) -> wire.Address:
        listening = wire.listener("127.0.0.1")
        open_ones.append(listening)
        threading.Thread(target=wire.serve, args=(listening, secret, store), daemon=True).start()
        return listening.getsockname()

    yield serve
    for each in open_ones:
        each.close()


def test_pieces_pass_along_a_chain_while_it_still_grows(source, tmp_path, serving):
    tree = scan(source)
    first, second = (Store(tree, tmp_path / name, SECRET) for name in ("first", "second"))
    for store in (first, second):
        tree.begin(store.root)
    from_first = wire.pieces(serving(first), SECRET, 0)
    from_second = wire.pieces(serving(second), SECRET, 0)

    for index in range(tree.pieces):
        first.add(sealed(SECRET, index, tree.read(source, index)))
        second.add(next(from_first))
        assert next(from_second).content == tree.read(source, index)

    assert first.whole
    assert second.whole


def test_who_was_there_before_seals_what_it_passes_on(source, tmp_path, serving):
    tree = scan(source)
    other = Store(tree, tmp_path / "other", SECRET)
    tree.begin(other.root)

    for piece in wire.pieces(serving(Store(tree, source, SECRET, whole=True)), SECRET, 0):
        other.add(piece)
        if other.whole:
            break

    assert tree.read(other.root, 2) == tree.read(source, 2)


def test_a_store_that_will_get_nothing_more_sends_its_clients_away(source, tmp_path, serving):
    store = Store(scan(source), tmp_path / "first", SECRET)
    store.close()

    with pytest.raises(ConnectionError, match="it ended the connection"):
        next(wire.pieces(serving(store), SECRET, 0))


def test_without_the_secret_of_the_job_nobody_gets_or_gives_a_byte(source, serving):
    address = serving(Store(scan(source), source, SECRET, whole=True))

    with pytest.raises(ConnectionError):
        next(wire.pieces(address, bytes(32), 0))


def test_a_server_that_only_accepts_is_dead_after_a_while():
    with closing(socket.create_server(("127.0.0.1", 0))) as silent, pytest.raises(TimeoutError):
        next(wire.pieces(silent.getsockname(), SECRET, 0, silent_s=0.05))


def test_a_piece_that_was_changed_moved_or_sealed_by_another_is_not_written(source, tmp_path):
    tree = scan(source)
    store = Store(tree, tmp_path / "store", SECRET)
    tree.begin(store.root)
    seal, content = sealed(SECRET, 0, tree.read(source, 0))

    for wrong in (
        Piece(seal, b"x" + content[1:]),
        sealed(SECRET, 1, tree.read(source, 1)),
        sealed(bytes(32), 0, content),
    ):
        with pytest.raises(Damaged):
            store.add(wrong)

    assert store.count == 0
    assert not (store.root / "a").exists()


def test_a_place_is_refused_if_it_is_shared_taken_or_too_small(tmp_path):
    small = Tree((Entry("", 0o100644, 10, 0),))
    huge = Tree((Entry("", 0o100644, 1 << 60, 0),))
    taken = tmp_path / "taken"
    taken.touch()

    assert room.objection(tmp_path / "new" / "deep", small) == ""
    assert room.objection(taken, small) == f"{taken} is there, and was not staged by piolet"
    assert "do not fit" in room.objection(tmp_path / "new", huge)
    assert "memory" in room.objection(Path("/dev/shm/new"), huge)  # noqa: S108 - memory
    assert room.objection(Path("/proc/new"), small) == "/proc is on proc, which is not known to be this node's own"


def test_what_was_staged_is_known_again_until_it_or_its_source_changes(source, tmp_path):
    tree, target = scan(source), tmp_path / "target"
    copied(tree, source, target)
    assert not room.holds(target, tree)

    room.note(target, tree, str(source))

    assert room.holds(target, tree)
    assert room.objection(target, tree) == ""
    os.utime(source / "a")
    assert not room.holds(target, scan(source))
    (target / "a").unlink()
    assert not room.holds(target, tree)


@pytest.mark.parametrize(
    ("found", "direct"),
    [
        (Measured(network=1e9, alone=2e9, together=0.1e9), False),
        (Measured(network=1e9, alone=2e9, together=1.5e9), True),
        (Measured(network=1e9, alone=2e9, together=1.1e9), False),
        (Measured(network=None, alone=2e9, together=9e9), False),
        (Measured(network=5e9, alone=1e9, together=1.0e9), False),
    ],
)
def test_nodes_read_directly_only_if_that_is_clearly_quicker(found, direct):
    choice = choosing.choose(10**10, 16, found)

    assert choice.direct is direct
    assert "s against" in choice.reason or "missing" in choice.reason


def test_one_node_or_little_is_not_measured():
    assert choosing.unmeasured(10**10, 1).direct
    assert not choosing.unmeasured(10**6, 16).direct
    assert choosing.unmeasured(10**10, 16) is None
    assert choosing.slowest([3.0, None]) is None
    assert choosing.slowest([3.0, 2.0]) == 2.0


def test_chains_share_the_readers_behind_those_that_have_it():
    assert staging.chains(["a", "b", "c"], [], 1) == [["a", "b", "c"]]
    assert staging.chains(["a", "b", "c"], ["z"], 2) == [["z", "a"], ["z", "b", "c"]]
    assert staging.chains(["a", "b"], [], 9) == [["a"], ["b"]]
    assert staging.chains([], ["z"], 1) == [["z"]]


def test_an_order_is_one_line_and_the_step_outlives_its_dead(source):
    order = Order(SECRET, scan(source), source, Path("/node/x"), {"node1": "10.0.0.1"}, "hsn0")

    assert "\n" not in order.to_json()
    assert Order.from_json(order.to_json()) == order
    argv = step_argv(NodeSet("node[1-3]"), 7)
    assert {"--no-kill", "--kill-on-bad-exit=0", "--overlap", "--jobid=7", "--nodes=3"} <= set(argv)
    assert SECRET.hex() not in " ".join(argv)


def test_the_tightest_control_group_above_says_how_much_memory_is_left(tmp_path):
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    assert cgroup.memory_left(tmp_path / "none", tmp_path) is None
    write("proc/self/cgroup", "0::/slurm/job_7/step_0\n")
    write("fs/cgroup/slurm/job_7/step_0/memory.max", "max\n")
    write("fs/cgroup/slurm/job_7/step_0/memory.current", "10\n")
    write("fs/cgroup/slurm/job_7/memory.max", "1000\n")
    write("fs/cgroup/slurm/job_7/memory.current", "100\n")
    write("fs/cgroup/slurm/memory.max", "5000\n")
    write("fs/cgroup/slurm/memory.current", "4200\n")
    assert cgroup.memory_left(tmp_path / "proc", tmp_path) == 800
    write("proc/self/cgroup", "9:memory:/slurm/job_7\n8:cpu:/slurm\n")
    write("fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes", "700\n")
    write("fs/cgroup/memory/slurm/job_7/memory.usage_in_bytes", "50\n")
    write("fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write("fs/cgroup/memory/memory.usage_in_bytes", "0\n")
    assert cgroup.memory_left(tmp_path / "proc", tmp_path) == 650
