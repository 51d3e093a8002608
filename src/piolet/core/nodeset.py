"""Sets of node names in Slurm's notation, with set algebra.

A thin, immutable face on ClusterShell's NodeSet, the field's own hostlist algebra. Groups (`@group`) are off:
a hostlist from Slurm never has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSetException
from ClusterShell.NodeSet import NodeSet as _NodeSet

from piolet.core.errors import ParseError

_OUTSIDE_BRACKETS = re.compile(r",(?![^\[]*\])")


class NodeSet:
    """An ordered set of node names; `str()` folds it to ``node[1-3,7]``.

    Accepts Slurm's form with several brackets and padding, such as ``rack[1-2]n[01-16],login1``.
    """

    __slots__ = ("_inner",)

    def __init__(self, names: str | Iterable[str] = "") -> None:
        text = names if isinstance(names, str) else ",".join(names)
        try:
            self._inner = _NodeSet(text or None, resolver=RESOLVER_NOGROUP)
        except (NodeSetException, AssertionError) as error:  # the second is ClusterShell's for a range too large
            raise ParseError(f"not a node list: {error}", source="node list", text=text) from error

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Iterator[str]:
        return iter(self._inner)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(name) and NodeSet(name) <= self

    def __str__(self) -> str:
        return ",".join(_for_slurm(name) for name in _OUTSIDE_BRACKETS.split(str(self._inner)))

    def __repr__(self) -> str:
        return f"NodeSet({str(self)!r})"

    def __hash__(self) -> int:
        return hash(str(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodeSet) and bool(self._inner == other._inner)

    def __le__(self, other: NodeSet) -> bool:
        return bool(self._inner <= other._inner)

    def __or__(self, other: NodeSet) -> NodeSet:
        return NodeSet(str(self._inner | other._inner))

    def __and__(self, other: NodeSet) -> NodeSet:
        return NodeSet(str(self._inner & other._inner))

    def __sub__(self, other: NodeSet) -> NodeSet:
        return NodeSet(str(self._inner - other._inner))

    def first(self, count: int) -> NodeSet:
        """Return the first `count` nodes in order."""
        return NodeSet(str(self._inner[:count])) if count > 0 else NodeSet()


_ITEM = re.compile(r"([\w.-]+)(?:\[(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\])?(?:,(?!$)|$)", re.ASCII)
_MOST = 100_000


def names(text: str) -> frozenset[str]:
    """Return the names of a node list, as `NodeSet` does, but many times as fast for lists as Slurm prints them.

    Raises:
        ParseError: it is no node list.
    """
    found: set[str] = set()
    position = 0
    while position < len(text):
        item = _ITEM.match(text, position)
        numbers = _numbers(item[2]) if item else None
        if item is None or numbers is None:
            return frozenset(NodeSet(text))
        found.update(item[1] + number for number in numbers)
        position = item.end()
    return frozenset(found)


def _numbers(ranges: str | None) -> list[str] | None:
    """Return what stands for a bracket, each number as wide as the first of its range; None if that is not plain."""
    found: list[str] = []
    for each in ranges.split(",") if ranges else ():
        low, _, high = each.partition("-")
        first, last = int(low), int(high or low)
        if not first <= last < first + _MOST:
            return None
        found += [f"{number:0{len(low)}d}" for number in range(first, last + 1)]
    return found or [""]


def _for_slurm(folded: str) -> str:
    """Return the names one by one where text follows the last bracket: Slurm cannot read ``r[0-1]n01``."""
    return (
        ",".join(_NodeSet(folded, resolver=RESOLVER_NOGROUP)) if "[" in folded and not folded.endswith("]") else folded
    )
