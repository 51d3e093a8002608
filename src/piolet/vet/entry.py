"""One entry of a protocol file, and the keys that every entry may have beside the parameters of its check."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from piolet.core.errors import ConfigError
from piolet.core.nouns import Severity
from piolet.core.text import did_you_mean
from piolet.core.toml import Document
from piolet.vet.check import Check
from piolet.vet.protocol import DEFAULT_STAGE, Comparison, Criteria, Repeat

T = TypeVar("T")

COMMON = ("name", "type", "timeout", "requirements", "stage", "severity", "repeat", "criteria")

MAX_TIMEOUT_S = 3600.0
MAX_REPETITIONS = 1000
LEAST_PAST = 20
"""Earlier values without which history compares nobody, unless a protocol says otherwise."""

_SHORT = {"pause_s": "pause"}
"""Names in files that are shorter than ours, as `timeout` is: in seconds."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One element of `evals`, with the key that messages point at."""

    document: Document
    key: str
    values: Mapping[str, Any]

    def error(self, what: str, name: str = "", *, remedy: str) -> ConfigError:
        """Return the error for what is wrong at the key `name` of this entry."""
        return self.document.error(what, f"{self.key}.{name}" if name else self.key, remedy=remedy)

    @property
    def parameters(self) -> dict[str, Any]:
        """What it says to its check."""
        return {name: value for name, value in self.values.items() if name not in COMMON}


def stage(entry: Entry) -> str:
    """Return the stage: the checks of a stage are one step, on the nodes that passed those before."""
    value = entry.values.get("stage", DEFAULT_STAGE)
    if not isinstance(value, str) or not value:
        raise entry.error("the stage is not text", "stage", remedy="give it a name, such as `stage: network`")
    return value


def severity(entry: Entry) -> Severity:
    """Return the severity; only an error refuses a node."""
    value = entry.values.get("severity", Severity.ERROR)
    if value not in list(Severity):
        known = ", ".join(Severity)
        raise entry.error(
            f"severity cannot be {value!r}", "severity", remedy=f"one of {known}; only error refuses nodes"
        )
    return Severity(value)


def timeout_s(entry: Entry, check: Check[Any, Any]) -> float:
    """Return the seconds that a check may take, each time."""
    value = entry.values.get("timeout", check.timeout_s)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_TIMEOUT_S:
        raise entry.error(f"timeout cannot be {value!r}", "timeout", remedy=f"seconds, up to {MAX_TIMEOUT_S:g}")
    return float(value)


def repeat(entry: Entry) -> Repeat:
    """Return how often: a number, of which all must pass, or `{times, passes, pause}`."""
    value = entry.values.get("repeat", 1)
    found = _made(entry, "repeat", Repeat, value if isinstance(value, dict) else {"times": value})
    if found.passes not in ("all", "most", "one"):
        raise entry.error(f"passes cannot be {found.passes!r}", "repeat", remedy="all, most or one")
    if not 1 <= found.times <= MAX_REPETITIONS or not 0 <= found.pause_s <= MAX_TIMEOUT_S:
        raise entry.error(
            f"repeat cannot be {value!r}",
            "repeat",
            remedy=f"1 to {MAX_REPETITIONS} times, a pause up to {MAX_TIMEOUT_S:g} s",
        )
    return found


def criteria(entry: Entry, check: Check[Any, Any]) -> Criteria | None:
    """Return what is asked of the value; comparing needs to know which way it is better."""
    given = entry.values.get("criteria")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise entry.error(f"criteria cannot be {given!r}", "criteria", remedy="write a mapping: {at_least: 90}")
    values = dict(given)
    peers, history = values.pop("peers", None), values.pop("history", None)
    compares = peers is not None or history is not None
    if "usual" in values:
        raise entry.error('criteria has no "usual"', "criteria", remedy="write `history: {mad: 5}`")
    found = _made(entry, "criteria", Criteria, {"better": check.better} | values)
    if compares and not check.better and found.better not in ("higher", "lower"):
        what = f"{check.name} does not say whether more or less is better"
        raise entry.error(what, "criteria", remedy="add `better: higher` or `better: lower` to the criteria")
    if not compares and found.at_least is None and found.at_most is None:
        raise entry.error("the criteria ask nothing", "criteria", remedy="give at_least, at_most, peers or history")
    by_peers = None if peers is None else _made(entry, "criteria", Comparison, peers)
    by_history = None if history is None else _made(entry, "criteria", Comparison, history)
    if by_history and "least" not in history:
        by_history = replace(by_history, least=LEAST_PAST)
    return Criteria(found.better, found.at_least, found.at_most, by_peers, by_history)


def _made(entry: Entry, key: str, kind: type[T], given: Any) -> T:  # noqa: ANN401 - what a user wrote
    """Return `given` as a `kind`: every key known, every value of its type."""
    if not isinstance(given, dict):
        raise entry.error(f"{key} cannot be {given!r}", key, remedy="write a mapping, such as {mad: 5}")
    names = {_SHORT.get(each.name, each.name): each.name for each in fields(kind)}  # type: ignore[arg-type] # dataclasses
    for name in given:
        if name not in names:
            raise entry.error(f'{key} has no "{name}"', key, remedy=did_you_mean(str(name), names))
    try:
        values = json.dumps({names[name]: value for name, value in given.items()}, default=str)
        found: T = TypeAdapter(kind).validate_json(values, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise entry.error(f"{key}: {where}: {first['msg']}", key, remedy="correct the value") from error
    return found
