"""One node's part of staging: `python -m piolet.data.staging.node`, told on standard input what to do, line by line.

Each line is a JSON object, and so is each answer. When the input ends, so does this: what was not committed by then
is deleted. It serves other nodes until then.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piolet.core.errors import PioletError
from piolet.data.staging import room, wire
from piolet.data.staging.store import Piece, Store, sealed
from piolet.data.staging.tree import Tree

MARKER = '{"piolet_stage": '
_SAMPLE_S = 1.0
_TELL_S = 1.0
_MOST_SAID = 200
"""Characters of a reason: srun cuts lines at 1024 bytes."""

_MOST_ANCESTORS = 8
"""More than so many dead nodes in a row are not asked: the source is."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is staged where; `toward` has the addresses of two nodes, by which this one finds its own.

    What is not to be kept is deleted when this process ends, unless it was there before.
    """

    secret: bytes
    tree: Tree
    source: Path
    target: Path
    toward: Mapping[str, str]
    interface: str = ""
    keep: bool = True

    def to_json(self) -> str:
        """Return it as one line."""
        told: dict[str, Any] = {"secret": self.secret.hex(), "tree": self.tree.to_json(), "source": str(self.source)}
        told |= {"target": str(self.target), "toward": dict(self.toward), "interface": self.interface}
        return json.dumps(told | {"keep": self.keep})

    @classmethod
    def from_json(cls, text: str) -> Order:
        """Return the order that `to_json` wrote."""
        told = json.loads(text)
        tree, secret = Tree.from_json(told["tree"]), bytes.fromhex(told["secret"])
        source, target = Path(told["source"]), Path(told["target"])
        return cls(secret, tree, source, target, told["toward"], told["interface"], told["keep"])


def main() -> None:
    """Do what standard input says; SIGTERM ends it as the end of the input does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    told = sys.stdin.readline()
    try:
        if "unstage" in (words := json.loads(told)):
            _unstage(Path(words["unstage"]))
            return
        order = Order.from_json(told)
        with _partial(order.target) as partial, _Node(order, partial).holding() as node:
            node.obey(map(json.loads, sys.stdin))
    except (OSError, PioletError) as error:
        say(failed=_said(error))


def say(**what: object) -> None:
    """Tell the coordinator, in one write, so that no two lines mix."""
    os.write(sys.stdout.fileno(), f"{MARKER}{json.dumps(_name())}, {json.dumps(what)[1:]}\n".encode())


def _name() -> str:
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """Yield a name beside the target that nobody else has; what is there in the end is deleted."""
    partial = target.with_name(f".{target.name}.{os.urandom(4).hex()}.partial")
    try:
        yield partial
    finally:
        delete(partial)


def delete(path: Path) -> None:
    """Delete a file or a directory; nothing if it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _unstage(target: Path) -> None:
    """Delete what was staged, with its record, and what stagings that were killed left."""
    if os.path.lexists(target) and room.staged(target) is None:
        say(failed=f"{target} was not staged by piolet, and stays")
        return
    for path in (target, room.record_of(target), *room.left_at(target)):
        delete(path)
    say(unstaged=True)


class _Node:
    """This node: what it has, and whom it may ask for the rest."""

    def __init__(self, order: Order, partial: Path) -> None:
        self._order, self._partial = order, partial
        self._there = room.holds(order.target, order.tree)
        root = order.target if self._there else partial
        self._store = Store(order.tree, root, order.secret, whole=self._there)
        self._peers: dict[str, wire.Address] = {}
        self._named = False

    @contextmanager
    def holding(self) -> Iterator[_Node]:
        """Delete in the end what was given its name here and is not to be kept."""
        try:
            yield self
        finally:
            if self._named and not self._order.keep:
                for path in (self._order.target, room.record_of(self._order.target)):
                    delete(path)

    def obey(self, commands: Iterable[dict[str, Any]]) -> None:
        """Listen, say so, and do what each command says."""
        reason = "" if self._there else room.objection(self._order.target, self._order.tree)
        if reason:
            say(refused=reason)
            return
        with closing(wire.listener(_address(self._order))) as listening:
            serving = (listening, self._order.secret, self._store)
            threading.Thread(target=wire.serve, args=serving, daemon=True).start()
            say(ready={"address": listening.getsockname(), "there": self._there})
            for command in commands:
                self._do(command)

    def _do(self, command: dict[str, Any]) -> None:
        name = command["do"]
        if name == "peers":
            self._peers = {node: (host, port) for node, (host, port) in command["peers"].items()}
        elif name == "measure_network":
            say(network=self._network_rate(command["from"].get(_name())))
        elif name == "measure_reading":
            say(reading=self._reading_rate(command["slots"].get(_name()), command["of"]))
        elif name == "fetch":
            threading.Thread(target=self._fetch, args=(command["chains"],), daemon=True).start()
        elif name == "commit":
            self._commit()

    def _network_rate(self, peer: str | None) -> float | None:
        """Return the bytes per second that come from a node, over a second; None if none is named."""
        return _rate(wire.noise(self._peers[peer], self._order.secret)) if peer else None

    def _reading_rate(self, slot: int | None, slots: int) -> float | None:
        """Return the bytes per second of reading the source's part number `slot`, of `slots` equal ones."""
        if slot is None:
            return None
        share = self._order.tree.pieces // slots
        return _rate(self._read(index, forget=True) for index in range(slot * share, (slot + 1) * share))

    def _read(self, index: int, *, forget: bool = False) -> Piece:
        tree, source = self._order.tree, self._order.source
        for entry, offset, length in tree.extents(index) if forget else ():
            with (source / entry.path).open("rb") as file:  # so that this node's cache does not answer
                os.posix_fadvise(file.fileno(), offset, length, os.POSIX_FADV_DONTNEED)
        return sealed(self._order.secret, index, tree.read(source, index))

    def _fetch(self, chains: Sequence[Sequence[str]]) -> None:
        """Get all pieces: from the node before in the chain, from those before that one, else from the source."""
        threading.Thread(target=self._tell, daemon=True).start()
        troubles = []
        try:
            if not self._there:
                self._order.target.parent.mkdir(parents=True, exist_ok=True)
                self._order.tree.begin(self._partial)
            for name, found in self._origins(chains):
                try:
                    self._take(found)
                except OSError as error:
                    troubles.append(f"{name}: {_said(error)}")
                if self._store.whole:
                    say(whole=troubles[-2:])
                    return
        except (OSError, PioletError) as error:
            troubles.append(_said(error))
        self._store.close()
        say(failed="; ".join(troubles[-2:]))

    def _origins(self, chains: Sequence[Sequence[str]]) -> Iterator[tuple[str, Iterator[Piece]]]:
        chain = next((each for each in chains if _name() in each), [_name()])
        before = list(reversed(chain[: chain.index(_name())]))
        for node in before[:_MOST_ANCESTORS]:
            yield node, wire.pieces(self._peers[node], self._order.secret, self._store.count)
        yield "the source", map(self._read, range(self._store.count, self._order.tree.pieces))

    def _take(self, found: Iterator[Piece]) -> None:
        while not self._store.whole:
            self._store.add(next(found))

    def _tell(self) -> None:
        while not self._store.whole:
            time.sleep(_TELL_S)
            say(at=self._store.count)

    def _commit(self) -> None:
        """Give what was fetched its name; an old directory of that name is put away first."""
        target, tree = self._order.target, self._order.tree
        if not self._there:
            tree.finish(self._partial)
            room.record_of(target).unlink(missing_ok=True)
            old = self._partial.with_suffix(".old")
            if target.is_dir():
                target.rename(old)
            self._named = True
            self._partial.replace(target)
            room.note(target, tree, str(self._order.source))
            delete(old)
        say(there=True)


def _rate(found: Iterable[Piece]) -> float | None:
    """Return bytes per second, for a second at most; None if nothing came."""
    began_s, amount = time.perf_counter(), 0
    for piece in found:
        amount += len(piece.content)
        if time.perf_counter() - began_s > _SAMPLE_S:
            break
    return amount / (time.perf_counter() - began_s) if amount else None


def _address(order: Order) -> str:
    """Return the address on which others reach this node."""
    if order.interface:
        return wire.address_of(order.interface)
    others = [address for name, address in order.toward.items() if name != _name()]
    return wire.address_toward(others[0]) if others else "127.0.0.1"


def _said(error: OSError | PioletError) -> str:
    said = error.what if isinstance(error, PioletError) else error.strerror or str(error)
    where = f": {error.filename}" if isinstance(error, OSError) and error.filename else ""
    return f"{said}{where}"[:_MOST_SAID]


if __name__ == "__main__":
    main()
