"""Who it is, when nodes are good apart and bad together: bisected, and paired with known-good nodes. Pure.

A collective is as slow as its slowest member, so its failure is anybody's. What is measured are groups of nodes, as
many at once as have no node in common, by a `measure` that is given. Bad groups are halved until pairs are left; then
each suspect is paired with nodes that were seen to be good, with another one each time. Only a node that was bad with
every one of them is named, and only if all the others are good together; else it lies between them, and nobody is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from piolet.core.nodeset import NodeSet

Measure = Callable[[Sequence[NodeSet]], Sequence[bool]]
"""Tells of each of some groups, disjoint and of two nodes or more, whether it is good."""

PARTNERS = 3
"""Known-good nodes that a suspect is paired with, if there are so many."""

LEAST = 3
"""Of two nodes that are bad together, nobody can tell which it is."""


@dataclass(frozen=True, slots=True)
class Named:
    """A node that was bad in `bad` of `pairings` with known-good nodes."""

    node: str
    bad: int
    pairings: int

    @property
    def confidence(self) -> float:
        """How likely the next pairing is bad too (0..1): Laplace's rule of succession."""
        return (self.bad + 1) / (self.pairings + 2)


@dataclass(frozen=True, slots=True)
class Located:
    """The nodes that are named, those that are good together, and those of which neither can be said, and why."""

    named: tuple[Named, ...] = ()
    good: NodeSet = field(default_factory=NodeSet)
    unsure: NodeSet = field(default_factory=NodeSet)
    why: str = ""


def locate(nodes: NodeSet, measure: Measure) -> Located:
    """Find out which of `nodes`, which are bad together, it is."""
    if len(nodes) < LEAST:
        return Located(unsure=nodes, why=f"{len(nodes)} nodes are too few to tell which it is: vet {LEAST} or more")
    bad, good = _bisected(nodes, measure)
    suspects = nodes - good
    if not good:
        good = _tournament(suspects, measure)
        suspects -= good
    if not good:
        return Located(unsure=nodes, why="no two nodes were good together, so there is nobody to compare with")
    votes = _paired(suspects, good, measure)
    named = tuple(each for each in votes if each.bad == each.pairings)
    good |= NodeSet(each.node for each in votes if not each.bad)
    unsure = NodeSet(each.node for each in votes if 0 < each.bad < each.pairings)
    if len(good) > 1 and not measure([good])[0]:
        least = min((group for group in bad if group <= good), key=len, default=good)
        return Located(
            unsure=nodes, why=f"each of {least} is good with others, together they are bad: look between them"
        )
    return Located(named, good, unsure, "good with some nodes and bad with others" if unsure else "")


def _bisected(nodes: NodeSet, measure: Measure) -> tuple[list[NodeSet], NodeSet]:
    """Return the groups that were bad, and the nodes of those that were good."""
    bad, good, groups = [nodes], NodeSet(), [nodes]
    while groups:
        halves = [half for group in groups for half in _halved(group)]
        found = measure(halves)
        good |= _joined(half for half, fine in zip(halves, found, strict=True) if fine)
        failed = [half for half, fine in zip(halves, found, strict=True) if not fine]
        bad += failed
        groups = [half for half in failed if len(half) > 2]  # noqa: PLR2004 - a pair has no halves to measure
    return bad, good


def _halved(group: NodeSet) -> list[NodeSet]:
    """Return the halves that can be measured: a half of one node cannot."""
    first = group.first(len(group) - len(group) // 2)
    return [half for half in (first, group - first) if len(half) > 1]


def _tournament(nodes: NodeSet, measure: Measure) -> NodeSet:
    """Pair the nodes in ever other ways until some pair is good; return the nodes of those that are."""
    for pairs in _rounds(list(nodes)):
        found = measure(pairs)
        if any(found):
            return _joined(pair for pair, fine in zip(pairs, found, strict=True) if fine)
    return NodeSet()


def _rounds(nodes: list[str]) -> Iterator[list[NodeSet]]:
    """Yield rounds in which everybody meets somebody else, by the circle method; twice `PARTNERS` at most."""
    places: list[str | None] = [*nodes, *([None] if len(nodes) % 2 else [])]
    for _ in range(min(len(places) - 1, 2 * PARTNERS)):
        half = len(places) // 2
        pairs = zip(places[:half], reversed(places[half:]), strict=True)
        yield [NodeSet([one, other]) for one, other in pairs if one and other]
        places = [places[0], places[-1], *places[1:-1]]


def _paired(suspects: NodeSet, good: NodeSet, measure: Measure) -> list[Named]:
    """Pair each suspect with up to `PARTNERS` good nodes, and count with how many it was bad."""
    partners, count = list(good), min(PARTNERS, len(good))
    bad = dict.fromkeys(suspects, 0)
    for turn in range(count):
        waiting = list(suspects)
        while waiting:
            now, waiting = waiting[: len(partners)], waiting[len(partners) :]
            pairs = [NodeSet([node, partners[(index + turn) % len(partners)]]) for index, node in enumerate(now)]
            for node, fine in zip(now, measure(pairs), strict=True):
                bad[node] += not fine
    return [Named(node, times, count) for node, times in bad.items()]


def _joined(groups: Iterator[NodeSet]) -> NodeSet:
    return NodeSet(node for group in groups for node in group)
