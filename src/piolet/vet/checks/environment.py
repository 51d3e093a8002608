"""Variables that programs rely on are set on the node, and to what they must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import MinLen

from piolet.core.nouns import Status
from piolet.vet.check import Check, Context, Judgement


@dataclass(frozen=True, slots=True)
class Parameters:
    """`expected`: per variable the value that it must have; null: it must be set, to anything."""

    expected: Annotated[Mapping[str, str | None], MinLen(1)]


def observe(parameters: Parameters, context: Context) -> dict[str, str | None]:
    """Look each variable up in the environment of the step; None is not set."""
    return {name: context.environ.get(name) for name in parameters.expected}


def judge(observation: Mapping[str, str | None], parameters: Parameters) -> Judgement:
    """Fail on any variable that is not set or has another value; all are named."""
    wrong = [
        _difference(name, observation.get(name), wanted)
        for name, wanted in parameters.expected.items()
        if observation.get(name) is None or wanted not in (None, observation[name])
    ]
    count = len(parameters.expected)
    if wrong:
        remedy = "set them in the job script, in the environment's [env] table or in the site's profile"
        return Judgement(Status.FAIL, "; ".join(wrong), count - len(wrong), count, "variables", remedy)
    return Judgement(Status.PASS, "every variable is as expected", count, count, "variables")


def _difference(name: str, found: str | None, wanted: str | None) -> str:
    return f"{name} is not set" if found is None else f"{name} is {found!r} instead of {wanted!r}"


CHECK = Check(
    name="environment",
    version=1,
    summary="variables that programs rely on are set",
    source="the protocol itself",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    light=True,
)
