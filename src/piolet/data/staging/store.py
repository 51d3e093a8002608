"""What a node has of a tree so far: the pieces from the first on, each with the seal of whoever read it first."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from piolet.data.staging.tree import Tree

SEAL_BYTES = 32


class Piece(NamedTuple):
    """The bytes of a piece and their seal."""

    seal: bytes
    content: bytes | bytearray


class Damaged(OSError):  # noqa: N818 - the state of the piece
    """A piece is not what its seal says: it was damaged, or comes from somebody who does not know the job's secret."""


def sealed(secret: bytes, index: int, content: bytes | bytearray) -> Piece:
    """Return a piece with its seal: a digest under the job's secret (32 bytes), which covers its place too."""
    return Piece(blake3(content, key=secret).update(index.to_bytes(8, "big")).digest(), content)


class Store:
    """The pieces of `tree` that lie below `root`; several threads read while one adds."""

    def __init__(self, tree: Tree, root: Path, secret: bytes, *, whole: bool = False) -> None:
        self.tree, self.root = tree, root
        self.count = tree.pieces if whole else 0
        self._secret, self._seals = secret, list[bytes]()
        self._changed = threading.Condition()
        self._closed = False

    @property
    def whole(self) -> bool:
        """Whether all of it is there."""
        return self.count == self.tree.pieces

    def add(self, piece: Piece) -> None:
        """Write the next piece; Damaged unless its seal is right."""
        if sealed(self._secret, self.count, piece.content).seal != piece.seal:
            raise Damaged(f"piece {self.count} is not what its seal says")
        self.tree.write(self.root, self.count, piece.content)
        with self._changed:
            self._seals.append(piece.seal)
            self.count += 1
            self._changed.notify_all()

    def get(self, index: int, wait_s: float) -> Piece | None:
        """Return a piece as soon as it is there; None if it is not within `wait_s` seconds.

        Raises:
            OSError: it cannot be read, or will never come.
        """
        with self._changed:
            self._changed.wait_for(lambda: index < self.count or self._closed, wait_s)
            if self._closed:
                raise BrokenPipeError("nothing more will come")
            if index >= self.count:
                return None
        content = self.tree.read(self.root, index)
        return Piece(self._seals[index], content) if self._seals else sealed(self._secret, index, content)

    def close(self) -> None:
        """Let nobody wait any longer, since nothing will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
