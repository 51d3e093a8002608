"""The policy: limits, breaker and rules, as a TOML file that operators write; the shipped one is policy.toml here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from piolet.core import toml
from piolet.core.text import did_you_mean
from piolet.fleet.rules import Rule

SHIPPED = Path(__file__).with_name("policy.toml")

Fraction = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the fleet never exceeds. Fractions are of the nodes that Slurm knows.

    At most `out_fraction` of all nodes and `out_nodes` are out at once, `group_fraction` of a partition or rack, and
    `window_nodes` are drained in `window_h` hours. A partition keeps `partition_keep` usable nodes.
    """

    out_fraction: Fraction = 0.05
    out_nodes: Annotated[int, Ge(0)] = 50
    group_fraction: Fraction = 0.25
    window_nodes: Annotated[int, Ge(0)] = 5
    window_h: Annotated[float, Gt(0)] = 1.0
    partition_keep: Annotated[int, Ge(1)] = 1


@dataclass(frozen=True, slots=True)
class Guard:
    """When the same failure on `nodes` nodes, and on `fraction` of all, within `window_min` indicts the check."""

    nodes: Annotated[int, Ge(2)] = 5
    fraction: Fraction = 0.02
    window_min: Annotated[float, Gt(0)] = 10.0


@dataclass(frozen=True, slots=True)
class Course:
    """The way back: quiet days until an observed node is in again, and clean jobs that end a probation.

    `signals` different rules make an observed node suspect; a wish to drain expires after `wish_h` hours.
    """

    quiet_days: Annotated[float, Gt(0)] = 7.0
    clean_jobs: Annotated[int, Ge(1)] = 3
    signals: Annotated[int, Ge(2)] = 2
    wish_h: Annotated[float, Gt(0)] = 24.0


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that decisions depend on beside the ledger. `racks` maps a rack to its nodes in Slurm's form."""

    rule: tuple[Rule, ...] = ()
    limits: Limits = Limits()
    breaker: Guard = Guard()
    course: Course = Course()
    racks: Mapping[str, str] = field(default_factory=dict)


def load(path: Path | None = None) -> Policy:
    """Read a policy (default: the shipped one).

    Raises:
        ConfigError: something in it is not as it must be: which key, which line, what is allowed.
        StorageError: it cannot be read.
    """
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - slow to import

    document = toml.read(path or SHIPPED)
    _check_keys(document)
    try:
        policy: Policy = TypeAdapter(Policy).validate_python(document.data)
    except ValidationError as error:
        first = error.errors()[0]
        key = _key(first["loc"])
        raise document.error(
            f"{key}: {first['msg']}", key, remedy="docs/reference/fleet.md lists what is allowed"
        ) from (error)
    for index, rule in enumerate(policy.rule):
        if Counter(one.name for one in policy.rule)[rule.name] > 1:
            raise document.error(
                f'two rules are called "{rule.name}"', f"rule[{index}].name", remedy="give each a name of its own"
            )
    return policy


def _check_keys(document: toml.Document) -> None:
    known = {field.name: [inner.name for inner in fields(kind)] for field, kind in _tables()}
    for key, value in document.data.items():
        if key not in {one.name for one in fields(Policy)}:
            raise document.error(
                f'unknown key "{key}"', key, remedy=did_you_mean(key, [f.name for f in fields(Policy)])
            )
        rows = value if isinstance(value, list) else [value]
        for index, row in enumerate(rows if key in known else []):
            place = f"{key}[{index}]" if isinstance(value, list) else key
            for name in row if isinstance(row, dict) else ():
                if name not in known[key]:
                    raise document.error(
                        f'unknown key "{name}"', f"{place}.{name}", remedy=did_you_mean(name, known[key])
                    )


def _tables() -> list[tuple[Any, type]]:
    kinds: dict[str, type] = {"rule": Rule, "limits": Limits, "breaker": Guard, "course": Course}
    return [(one, kinds[one.name]) for one in fields(Policy) if one.name in kinds]


def _key(location: tuple[int | str, ...]) -> str:
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key
