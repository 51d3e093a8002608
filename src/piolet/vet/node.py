"""The node's side: run the checks of a protocol here and print one line.

Whatever happens, the line is the only thing on stdout that begins with its marker, and it is written at once. This
module must stay quick to import: it is started on every node before every run.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from piolet.core.nouns import CheckResult, Status
from piolet.vet.check import Check, Context, Judgement
from piolet.vet.isolation import Outcome, Task, run_isolated
from piolet.vet.protocol import BEGUN, PlannedCheck, Protocol, Repeat, parsed

VERSION = 1
_INVENTORY = "\0inventory"
_INVENTORY_TIMEOUT_S = 5.0


def answer(protocol: Protocol, environ: Mapping[str, str]) -> str:
    """Run the protocol on this node and return the line that says what was found."""
    started_s = time.monotonic()
    context = Context(environ, protocol.kernel_log)
    _import_once(protocol)
    tasks = [(check.quiet, _task(check, context)) for check in protocol.checks]
    at_once = [task for quiet, task in tasks if not quiet]
    *outcomes, gpus = run_isolated([*at_once, Task(_INVENTORY, _Inventory(context), _INVENTORY_TIMEOUT_S)])
    outcomes += [outcome for quiet, task in tasks if quiet for outcome in run_isolated([task])]
    node, said = node_name(environ), {outcome.name: outcome for outcome in outcomes}
    results = [_result(check, node, said[check.name]) for check in protocol.checks]
    found = {
        "piolet_vet": VERSION,
        "node": node,
        "ready": all(result.status is Status.PASS for result in results),
        "checks": [asdict(result) for result in results],
        "gpus": parsed(gpus.text or "[]"),
        "duration_s": round(time.monotonic() - started_s, 4),
    }
    return json.dumps(found, separators=(",", ":"))


def _task(check: PlannedCheck, context: Context) -> Task:
    """Return the check as a task; those of others may hang or start threads as soon as they are imported."""
    return Task(check.name, _Run(check, context), check.longest_s, apart=not _is_ours(check))


def _is_ours(check: PlannedCheck) -> bool:
    return check.reference.startswith("piolet.")


def _import_once(protocol: Protocol) -> None:
    """Import our own checks before the processes part, so that not each of them does."""
    for check in protocol.checks:
        if _is_ours(check):
            with contextlib.suppress(ImportError):  # the process of the check meets it again, and reports it
                find(check.reference)


def node_name(environ: Mapping[str, str]) -> str:
    """Return the name by which Slurm knows this node, or else the host's."""
    return environ.get("SLURMD_NODENAME") or os.uname().nodename


@dataclass(frozen=True, slots=True)
class _Run:
    """Observe and judge; runs in a process of its own."""

    planned: PlannedCheck
    context: Context

    def __call__(self) -> str:
        missing = [name for name in self.planned.requirements if not _installed(name)]
        if missing:
            return json.dumps(["", asdict(_without(missing))])
        check = find(self.planned.reference)
        parameters = check.parameters(**_frozen(self.planned.parameters))
        context = replace(self.context, timeout_s=self.planned.timeout_s)

        def once() -> Judgement:
            return check.judge(check.observe(parameters, context), parameters)

        return json.dumps([f"{check.name}/{check.version}", asdict(repeated(once, self.planned.repeat))])


def repeated(once: Callable[[], Judgement], repeat: Repeat, sleep: Callable[[float], None] = time.sleep) -> Judgement:
    """Judge as often as `repeat` says, or until nothing can change the answer, and return what stands for all of it.

    That is a judgement of the status that counts: the one with the median of the values, where there are values.
    """
    found = [once()]
    while len(found) < repeat.times and not _decided(found, repeat):
        sleep(repeat.pause_s)
        found.append(once())
    if repeat.times == 1:
        return found[0]
    passed = [each for each in found if each.status is Status.PASS]
    others = [each for each in found if each.status is not Status.PASS]
    alike = passed if len(passed) >= _needed(repeat) else others
    alike = [each for each in alike if each.status is Status.FAIL] or alike
    typical = sorted(alike, key=_number)[len(alike) // 2]
    return replace(typical, reason=f"{typical.reason} (passed {len(passed)} of {len(found)} times)")


def _decided(found: Sequence[Judgement], repeat: Repeat) -> bool:
    """Tell whether one pass was asked for and seen, or too many have not passed; values of passes are all wanted."""
    passed = sum(each.status is Status.PASS for each in found)
    return (repeat.passes == "one" and passed > 0) or len(found) - passed > repeat.times - _needed(repeat)


def _needed(repeat: Repeat) -> int:
    return {"all": repeat.times, "most": repeat.times // 2 + 1, "one": 1}[repeat.passes]


def _number(judgement: Judgement) -> float:
    return judgement.value if isinstance(judgement.value, int | float) else 0.0


def find(reference: str) -> Check[Any, Any]:
    """Return the check at ``module:attribute``."""
    module, _, attribute = reference.partition(":")
    check: Check[Any, Any] = getattr(importlib.import_module(module), attribute)
    return check


@dataclass(frozen=True, slots=True)
class _Inventory:
    """List the allocated GPUs; runs in a process of its own, since the driver may hang."""

    context: Context

    def __call__(self) -> str:
        from piolet.vet import gpus  # noqa: PLC0415 - the parent stays quick to start

        return json.dumps([asdict(gpu) for gpu in gpus.inventory(self.context)])


def _frozen(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with the lists that JSON made of tuples as tuples again."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in parameters.items()}


def _installed(requirement: str) -> bool:
    import re  # noqa: PLC0415 - slow to import, and few checks require anything
    from importlib import metadata  # noqa: PLC0415 - same

    try:
        metadata.distribution(re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0])
    except metadata.PackageNotFoundError:
        return False
    return True


def _without(missing: list[str]) -> Judgement:
    names = " ".join(missing)
    remedy = f"install {names} where the nodes see it; vetting never installs anything"
    return Judgement(Status.UNKNOWN, f"it requires {names}, not installed here", remedy=remedy)


def _result(planned: PlannedCheck, node: str, outcome: Outcome) -> CheckResult:
    version, judgement = planned.type, _silent(outcome)
    if not outcome.error:
        version, fields = parsed(outcome.text)
        judgement = Judgement(**(fields | {"status": Status(fields["status"])}))
    return CheckResult(
        check=planned.name,
        node=node,
        **asdict(judgement),
        duration_s=round(outcome.duration_s, 4),
        version=version or planned.type,
    )


def _silent(outcome: Outcome) -> Judgement:
    remedy = "run `piolet vet node` on this node by hand; the check may need a longer `timeout`"
    return Judgement(Status.UNKNOWN, f"the check did not finish: {outcome.error}", remedy=remedy)


def print_answer(protocol: Protocol) -> None:
    """Print that this node has begun, and then its answer, on stdout."""
    sys.stdout.write(f"{BEGUN}{node_name(os.environ)}\n")
    sys.stdout.flush()
    line = answer(protocol, os.environ)
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
