"""The guard as a check of vetting: what this job has open on a node, and what others left on its GPUs.

It lives here because vetting and the guard do not know each other.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from piolet.core.nouns import Status
from piolet.guard import policy
from piolet.guard.finding import Level
from piolet.guard.gates import shown
from piolet.guard.job import here, scan
from piolet.guard.policy import Verdict
from piolet.guard.rules import RULES
from piolet.vet.check import Check, Context, Judgement

_MOST_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Parameters:
    """`declare`: ports that are meant to be open ("8000", "20000-20100"). `policy`: a policy of the guard, by path."""

    declare: tuple[str, ...] = ()
    policy: str = ""


def observe(parameters: Parameters, context: Context) -> Verdict:  # noqa: ARG001 - the interface of checks
    """Scan the job around this process and judge it by the policy."""
    found = here.scan_here(scan.ports(parameters.declare))
    chosen = policy.read(Path(parameters.policy) if parameters.policy else None)
    return policy.judge(found, chosen, dt.datetime.now(tz=dt.UTC).date())


def judge(observation: Verdict, parameters: Parameters) -> Judgement:  # noqa: ARG001 - same
    """Fail on what the policy fails, be unknown where something could not be checked, and tell what it warns of."""
    for level, status in ((Level.FAIL, Status.FAIL), (Level.UNKNOWN, Status.UNKNOWN)):
        found = [each for each in observation.judged if each.level is level]
        if found:
            reason = "; ".join(map(shown, found[:_MOST_SHOWN]))
            return Judgement(status, reason, len(found), 0, "risks", RULES[found[0].rule].remedy)
    warned = [shown(each) for each in observation.judged if each.level is Level.WARN]
    return Judgement(Status.PASS, "; ".join(warned[:_MOST_SHOWN]) or "nothing of this job is open to others")


CHECK = Check(
    name="guard",
    version=1,
    summary="nothing of this job is open to others, and no GPU holds what others left",
    source="the rules job/* of piolet guard, each with its own source: piolet guard rules",
    parameters=Parameters,
    observe=observe,
    judge=judge,
)
