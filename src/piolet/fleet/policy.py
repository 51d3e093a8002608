"""The policy: limits, breaker and rules, as a TOML file that operators write; the shipped one is policy.toml here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen

from piolet.core import toml
from piolet.core.text import did_you_mean
from piolet.fleet.ledger import Verb
from piolet.fleet.rules import Rule, Trial

SHIPPED = Path(__file__).with_name("policy.toml")

Rung = Literal["reset", "reboot"]

Fraction = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the fleet never exceeds. Fractions are of the nodes that Slurm knows.

    At most `out_fraction` of all nodes and `out_nodes` are out at once, `group_fraction` of a partition, a rack or a
    switch, and `window_nodes` are drained in `window_h` hours. A partition keeps `partition_keep` usable nodes.
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

    `signals` different rules make an observed node suspect; a wish to drain expires after `wish_h` hours. Nodes on
    probation have `feature` in Slurm, if it is not empty.
    """

    quiet_days: Annotated[float, Gt(0)] = 7.0
    clean_jobs: Annotated[int, Ge(1)] = 3
    signals: Annotated[int, Ge(2)] = 2
    wish_h: Annotated[float, Gt(0)] = 24.0
    feature: str = "piolet_probation"


@dataclass(frozen=True, slots=True)
class Healing:
    """What the fleet does about a node that it has drained, and the site's commands for it.

    The rungs of `ladder` are tried one after the other, each followed by a job that runs `vet` there, with the protocol
    that failed or else `protocol`. A node that no rung healed, or that was drained `cycles` times in `cycles_days`
    days, is for RMA, and `ticket` tells who replaces it. An empty ladder leaves healing to operators.
    In commands {node}, {gpu}, {serial}, {protocol}, {reason} and {id} stand for what the action is about.
    """

    ladder: tuple[Rung, ...] = ()
    reset: tuple[str, ...] = ()
    reboot: tuple[str, ...] = ()
    ticket: tuple[str, ...] = ()
    vet: Annotated[tuple[str, ...], MinLen(1)] = ("piolet", "vet", "run", "--protocol", "{protocol}")
    protocol: str = "quick"
    vet_min: Annotated[int, Ge(1)] = 15
    command_s: Annotated[float, Gt(0)] = 300.0
    cycles: Annotated[int, Ge(1)] = 3
    cycles_days: Annotated[float, Gt(0)] = 7.0

    def command(self, verb: Verb) -> tuple[str, ...]:
        """Return the site's command for `verb`, empty if it has none."""
        return {Verb.RESET: self.reset, Verb.REBOOT: self.reboot, Verb.TICKET: self.ticket}[verb]


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that decisions depend on beside the ledger.

    `racks` and `switches` map their names to nodes in Slurm's form; each `test` says what must follow from evidence.
    """

    rule: tuple[Rule, ...] = ()
    limits: Limits = Limits()
    breaker: Guard = Guard()
    course: Course = Course()
    healing: Healing = Healing()
    racks: Mapping[str, str] = field(default_factory=dict)
    switches: Mapping[str, str] = field(default_factory=dict)
    test: tuple[Trial, ...] = ()


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
        ) from error
    _check_commands(document, policy.healing)
    for index, rule in enumerate(policy.rule):
        if Counter(one.name for one in policy.rule)[rule.name] > 1:
            raise document.error(
                f'two rules are called "{rule.name}"', f"rule[{index}].name", remedy="give each a name of its own"
            )
    return policy


def _check_commands(document: toml.Document, healing: Healing) -> None:
    """Refuse a rung without its command, and a name in braces that means nothing."""
    for rung in healing.ladder:
        if not healing.command(Verb(rung)):
            raise document.error(
                f'the ladder has "{rung}", and there is no command for it',
                "healing.ladder",
                remedy=f'say {rung} = ["command", "{{node}}"]',
            )
    for key in ("reset", "reboot", "ticket", "vet"):
        try:
            filled(getattr(healing, key))
        except (KeyError, IndexError, ValueError) as error:
            raise document.error(
                f"healing.{key}: {error} is nothing that can stand in braces",
                f"healing.{key}",
                remedy=f"it may be one of {', '.join(PLACES)}; write {{{{ for a brace",
            ) from error


PLACES = ("node", "gpu", "serial", "protocol", "reason", "id")
"""What stands in braces in the site's commands."""


def filled(command: Iterable[str], **values: str) -> list[str]:
    """Return `command` with `values` put where their names stand in braces."""
    return [word.format(**(dict.fromkeys(PLACES, "") | values)) for word in command]


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
    kinds: dict[str, type] = {
        "rule": Rule,
        "test": Trial,
        "limits": Limits,
        "breaker": Guard,
        "course": Course,
        "healing": Healing,
    }
    return [(one, kinds[one.name]) for one in fields(Policy) if one.name in kinds]


def _key(location: tuple[int | str, ...]) -> str:
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else part
    return key
