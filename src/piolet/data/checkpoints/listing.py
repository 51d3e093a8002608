"""What a judge of checkpoints sees: names and sizes, and a way to read one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True, slots=True)
class Listing:
    """A directory: its own name, the bytes of each file below it by relative path, and how to open one of them."""

    name: str
    sizes: Mapping[str, int]
    open: Callable[[str], IO[bytes]]

    def top(self) -> Iterator[str]:
        """Yield the names of the files that lie in the directory itself."""
        return (each for each in self.sizes if "/" not in each)

    def within(self, directory: str) -> Listing:
        """Return the listing of the directory of this relative path."""
        start = directory + "/"
        sizes = {each.removeprefix(start): size for each, size in self.sizes.items() if each.startswith(start)}
        return Listing(directory.rpartition("/")[2], sizes, lambda name: self.open(start + name))
