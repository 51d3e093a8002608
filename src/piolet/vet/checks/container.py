"""An environment starts on the node, and what its hooks and requirements promise holds in the container."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen

from piolet.core.errors import ToolTimeout
from piolet.core.native import native
from piolet.core.nouns import Status
from piolet.core.run import SystemRunner
from piolet.vet.check import Check, Context, Judgement

_VERIFIED = "SLURM_PIOLET_VERIFIED"
"""Where the launcher writes what it found to hold: a line each."""

_MARGIN_S = 1.0
_COULD_NOT_START = "piolet: the container could not be started"


@dataclass(frozen=True, slots=True)
class Parameters:
    """`plan`: the file that `piolet env compile` wrote. `command`: a program of the container that must end with 0."""

    plan: Annotated[str, MinLen(1)]
    command: Annotated[tuple[str, ...], MinLen(1)] = ("true",)


@dataclass(frozen=True, slots=True)
class Started:
    """How it ended: the program's status, what was said, how many promises hold, and whether it was late."""

    exit_status: int
    stderr: str
    verified: int
    late: bool = False


def observe(parameters: Parameters, context: Context) -> Started:
    """Start the container with the launcher that needs no root, and run the program in it."""
    with tempfile.TemporaryDirectory() as directory:
        runner = SystemRunner({**context.environ, _VERIFIED: directory})
        argv = [str(native("piolet-enter")), parameters.plan, "--", *parameters.command]
        try:
            done = runner.run(argv, timeout=context.timeout_s - _MARGIN_S, ok=None)
        except ToolTimeout as error:
            return Started(1, error.stderr, 0, late=True)
        files = Path(directory).glob("*.jsonl")
        return Started(done.rc, done.stderr, sum(file.read_text(encoding="utf-8").count("\n") for file in files))


def judge(observation: Started, parameters: Parameters) -> Judgement:
    """Fail if it did not start in time, if a promise does not hold, or if the program fails."""
    said = [line.strip() for line in observation.stderr.splitlines()]
    told = {name: rest.strip() for name, _, rest in (line.partition(":") for line in said)}
    if observation.late:
        return Judgement(Status.FAIL, "the container did not start in time", remedy="look at where its image lies")
    if _COULD_NOT_START in observation.stderr:
        return Judgement(Status.FAIL, f"{told.get('stage')}: {told.get('reason')}", remedy=told.get("next", ""))
    if observation.exit_status:
        words = f": {said[-1]}" if said else ""
        reason = f"{parameters.command[0]} ended with status {observation.exit_status} in the container{words}"
        return Judgement(Status.FAIL, reason, observation.exit_status, 0, remedy="run it by hand in the environment")
    count = observation.verified
    return Judgement(Status.PASS, f"it starts, and {count} promises hold in it", count, unit="promises")


CHECK = Check(
    name="container",
    version=1,
    summary="an environment starts here, and its hooks and requirements hold",
    source="the environment: what its hooks bring must load in the container, what it requires must be there",
    parameters=Parameters,
    observe=observe,
    judge=judge,
    timeout_s=60.0,
    typical_s=2.0,
)
