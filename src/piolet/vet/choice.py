"""Choosing the nodes that a program runs on, once the verdict is in. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from piolet.core.errors import Refused
from piolet.core.nodeset import NodeSet
from piolet.core.text import plural
from piolet.vet.answers import Refusal, Verdict


@dataclass(frozen=True, slots=True)
class Choice:
    """The nodes to use, the ready ones that are not needed, and the refused ones with their reasons."""

    used: NodeSet
    spare: NodeSet
    refused: tuple[Refusal, ...]


def choose(wanted: int, verdict: Verdict, *, keep_first: str | None = None) -> Choice:
    """Pick the first `wanted` ready nodes in the order of their names.

    `keep_first` names a node to prefer when it is ready: the batch host, which Slurm cannot free anyway.

    Raises:
        Refused: too few nodes are ready; the message gives the reason of each that is not.
    """
    if len(verdict.ready) < wanted:
        raise _too_few(wanted, verdict)
    preferred = NodeSet(keep_first or "") & verdict.ready
    used = preferred | (verdict.ready - preferred).first(wanted - len(preferred)) if wanted else NodeSet()
    return Choice(used, verdict.ready - used, verdict.refused)


def _too_few(wanted: int, verdict: Verdict) -> Refused:
    missing = wanted - len(verdict.ready)
    reasons = "".join(f"\n    {refusal.node}: {refusal.reason}" for refusal in verdict.refused)
    excluded = NodeSet(refusal.node for refusal in verdict.refused)
    return Refused(
        f"{plural(wanted, 'node')} wanted, {len(verdict.ready)} of {len(verdict.nodes)} ready{reasons}",
        remedy=f"ask for {plural(missing, 'more spare')} (--spares)"
        + (f", or keep these nodes out: --exclude={excluded}" if excluded else ""),
    )
