"""A protocol, compiled: what a node has to check, with everything decided and validated beforehand.

It travels to the nodes as JSON on the command line of the step, so a node reads no configuration and needs no
parser of ours. This module must stay quick to import.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

DEFAULT_TIMEOUT_S = 10.0
"""Seconds a check may take unless the protocol says otherwise; the passive checks need well under one."""


@dataclass(frozen=True, slots=True)
class PlannedCheck:
    """One check to run.

    `reference` is where the check is found (``module:attribute``), so that nodes need not search for plugins.
    `requirements` are the distributions the entry asks for; they are looked for on the node, never installed. The
    values of a `uniform` check are compared between the nodes.
    """

    name: str
    type: str
    reference: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = DEFAULT_TIMEOUT_S
    requirements: tuple[str, ...] = ()
    uniform: bool = False


@dataclass(frozen=True, slots=True)
class Protocol:
    """A named list of checks; `origin` is the file it was read from, `kernel_log` the log that nodes read."""

    name: str
    checks: tuple[PlannedCheck, ...]
    origin: str = ""
    kernel_log: str = "/dev/kmsg"

    def to_json(self) -> str:
        """Return the protocol as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))


def from_json(text: str) -> Protocol:
    """Read what `Protocol.to_json` wrote; anything else raises ValueError, TypeError or KeyError."""
    value = json.loads(text)
    checks = tuple(
        PlannedCheck(**(check | {"requirements": tuple(check.get("requirements", ()))})) for check in value["checks"]
    )
    return Protocol(**(value | {"checks": checks}))
