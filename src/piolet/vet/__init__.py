"""Compute-readiness of allocated nodes, checked before the program starts.

    protocol = vet.load_protocol("ml-training", settings)
    verdict = vet.vet_nodes(nodes, protocol, timeout_s=60)
    choice = vet.choose(4, verdict)

Slurm is the transport: one srun step, one line of JSON a node, no port and no rendezvous. It fails closed: a node
whose answer is absent, late, torn or contradictory is unknown, and unknown is not ready.

The names below load on first use, because compute nodes import this package on the way to `piolet.vet.node`.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # typing is slow to import
if TYPE_CHECKING:
    from typing import Any

    from piolet.vet.answers import Verdict, judge_answers
    from piolet.vet.choice import Choice, choose
    from piolet.vet.loading import load_protocol
    from piolet.vet.protocol import Protocol
    from piolet.vet.step import LEAST_S, vet_here, vet_nodes

__all__ = [
    "LEAST_S",
    "Choice",
    "Protocol",
    "Verdict",
    "choose",
    "judge_answers",
    "load_protocol",
    "vet_here",
    "vet_nodes",
]

_HOMES = {
    "LEAST_S": "step",
    "Choice": "choice",
    "Protocol": "protocol",
    "Verdict": "answers",
    "choose": "choice",
    "judge_answers": "answers",
    "load_protocol": "loading",
    "vet_here": "step",
    "vet_nodes": "step",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"piolet.vet.{_HOMES[name]}"), name)
