"""What a check is: parameters, an observation that reads, and a pure judgement of what was read.

A check is one file with a `CHECK`, registered under its type in the entry-point group `piolet.checks`; a package of
anybody's may add more. Keep imports light at module level: compute nodes import the modules of the checks they run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from piolet.core.nouns import Status
from piolet.vet.protocol import DEFAULT_TIMEOUT_S

GROUP = "piolet.checks"

P = TypeVar("P")
Seen = TypeVar("Seen")

Better = Literal["", "higher", "lower"]
"""Which way the value of a check is better; empty if it has no such value."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a check may need to know of the place it runs in; `timeout_s` is what it may take, this time."""

    environ: Mapping[str, str]
    kernel_log: str = "/dev/kmsg"
    timeout_s: float = DEFAULT_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a check concludes; `value` and `threshold` are in `unit`."""

    status: Status
    reason: str
    value: float | str | None = None
    threshold: float | str | None = None
    unit: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Check(Generic[P, Seen]):
    """One kind of check.

    `name` is its type in protocols. `parameters` is a frozen dataclass of what a protocol may set, with its defaults.
    `observe` runs in a process of its own, which may hang or die; whatever it raises makes the check unknown. `judge`
    is pure. `source` says where the threshold comes from. `version` grows whenever the same observation may be judged
    differently. The values of a `uniform` check must be equal on all nodes: piolet.vet.peers compares them.

    `collective` says for some parameters whether the nodes are measured together: then a failure is anybody's, and is
    traced with `groups`, a parameter that such a check has: node sets that are measured apart.

    `better` says which way its value is, so that a protocol may compare values. A `quiet` check measures: nothing else
    is checked on its node meanwhile. `timeout_s` is what it may take unless a protocol says otherwise, `typical_s` what
    it takes on a healthy node. A `light` check and what it imports work with the stand-ins of piolet.vet.light.
    """

    name: str
    version: int
    summary: str
    source: str
    parameters: type[P]
    observe: Callable[[P, Context], Seen]
    judge: Callable[[Seen, P], Judgement]
    uniform: bool = False
    better: Better = ""
    quiet: bool = False
    timeout_s: float = DEFAULT_TIMEOUT_S
    typical_s: float = 1.0
    light: bool = False
    collective: Callable[[P], bool] = lambda _: False
