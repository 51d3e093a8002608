"""A check that is a program: it prints one JSON object as its last line and is a check in any language."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt, MinLen

from piolet.core.nouns import Status
from piolet.core.run import SystemRunner
from piolet.vet.check import Check, Context, Judgement

_FIELDS = ("status", "reason", "value", "threshold", "unit", "remedy")
_REMEDY = 'let it print {"status": "pass", "reason": "..."} as its last line; run it by hand on the node'


@dataclass(frozen=True, slots=True)
class Parameters:
    """`command`: the program and its arguments, by an absolute path; no shell. `answer_s`: seconds that it may take."""

    command: Annotated[tuple[str, ...], MinLen(1)]
    answer_s: Annotated[float, Gt(0)] = 9.0


@dataclass(frozen=True, slots=True)
class Said:
    """The exit status of the program, and what it printed."""

    exit_status: int
    stdout: str
    stderr: str = ""


def observe(parameters: Parameters, context: Context) -> Said:
    """Run the program; one that is missing or late raises, which makes the check unknown."""
    runner = SystemRunner(context.environ)
    done = runner.run(parameters.command, timeout=parameters.answer_s, ok=None)
    return Said(done.rc, done.stdout, done.stderr)


def judge(observation: Said, parameters: Parameters) -> Judgement:  # noqa: ARG001 - the interface of checks
    """Take the program's word; without it, or with an exit status beside it, the check is unknown."""
    last = (observation.stdout.strip().splitlines() or [""])[-1]
    if observation.exit_status:
        words = (observation.stderr.strip().splitlines() or [last])[-1]
        reason = f"it ended with status {observation.exit_status}" + (f": {words}" if words else "")
        return Judgement(Status.UNKNOWN, reason, remedy=_REMEDY)
    try:
        return _judgement(json.loads(last))
    except (KeyError, TypeError, ValueError):
        return Judgement(Status.UNKNOWN, f"its last line is no judgement: {last[:80]!r}", remedy=_REMEDY)


def _judgement(value: dict[str, Any]) -> Judgement:
    if set(value) - set(_FIELDS):
        raise ValueError("a field too many")
    texts = {name: value[name] for name in ("reason", "unit", "remedy") if name in value}
    if not all(isinstance(text, str) for text in texts.values()) or not texts["reason"]:
        raise TypeError("text was expected")
    numbers = {name: value[name] for name in ("value", "threshold") if name in value}
    if any(isinstance(each, bool) or not isinstance(each, int | float | str | None) for each in numbers.values()):
        raise TypeError("a number or a text was expected")
    return Judgement(Status(value["status"]), **texts, **numbers)


CHECK = Check(
    name="script",
    version=1,
    summary="a program of yours, which prints its judgement as one line of JSON",
    source="the program",
    parameters=Parameters,
    observe=observe,
    judge=judge,
)
