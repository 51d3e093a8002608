"""Along a chain, or every node for itself? By what a short measurement found. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from piolet.core.text import plural, size

WORTH_BYTES = 64 << 20
"""Less is not measured: it would take longer than staging it."""

_BETTER = 0.8
"""Direct reading must take less than this share of the time, since it loads the file system once for each node."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Bytes per second; None: it could not be measured.

    The slowest link between neighbours, one node that reads alone, and the slowest when all read at once.
    """

    network: float | None
    alone: float | None
    together: float | None


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether each node reads the source itself, and why."""

    direct: bool
    reason: str


def unmeasured(size_bytes: int, readers: int) -> Choice | None:
    """Return the choice that needs no measurement; None if it does."""
    if readers <= 1:
        return Choice(direct=True, reason="one node reads, so there is nothing to pass on")
    if size_bytes < WORTH_BYTES:
        return Choice(direct=False, reason=f"under {size(WORTH_BYTES)}: passing it on spares the file system")
    return None


def choose(size_bytes: int, readers: int, found: Measured) -> Choice:
    """Return the quicker way for `readers` nodes, and the chain in doubt."""
    if not (found.network and found.alone and found.together):
        return Choice(direct=False, reason="a measurement is missing, and passing it on spares the file system")
    chain_s, direct_s = size_bytes / min(found.network, found.alone), size_bytes / found.together
    together = f"{plural(readers, 'node')} reading at once get {size(found.together)}/s each"
    passing = f"one gets {size(found.alone)}/s and passes on {size(found.network)}/s"
    reason = f"{together}, {passing}: {direct_s:.1f} s against {chain_s:.1f} s"
    return Choice(direct_s < _BETTER * chain_s, reason)


def slowest(rates: Collection[float | None]) -> float | None:
    """Return the least of some rates; None if one is not known, or there is none."""
    known = [rate for rate in rates if rate]
    return min(known) if known and len(known) == len(rates) else None
