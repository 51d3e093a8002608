"""The processors are those that the node should have, all of them, and are not told to save power."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, MinLen

from piolet.core.nouns import Status
from piolet.vet.check import Check, Context, Judgement

_SYSTEM = Path("/sys/devices/system/cpu")
_FIELD = re.compile(r"^(processor|model name|CPU implementer|CPU part)\s*: *(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the node should have; what is left out is not judged.

    `model`: a part of the processor's name (where the kernel gives none, as on Arm: "implementer/part", both as in
    /proc/cpuinfo). `count`: exactly so many CPUs are online, as `nproc --all` counts them. `governors`: the allowed
    ones; empty: any.
    """

    model: Annotated[str, MinLen(1)] | None = None
    count: Annotated[int, Ge(1)] | None = None
    governors: tuple[str, ...] = ("performance",)


@dataclass(frozen=True, slots=True)
class Cpus:
    """The names of the processors, each once, how many CPUs are online, and the governors, each once.

    Without governors the kernel does not scale the clock.
    """

    models: tuple[str, ...]
    count: int
    governors: tuple[str, ...] = ()


def observe(parameters: Parameters, context: Context) -> Cpus:  # noqa: ARG001 - the interface of checks
    """Read /proc/cpuinfo and the governor of each CPU."""
    models, count = parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    return Cpus(models, count, read_governors(_SYSTEM))


def judge(observation: Cpus, parameters: Parameters) -> Judgement:
    """Fail on another model, another count, or a governor that is not allowed."""
    model, count = parameters.model, parameters.count
    if count is not None and observation.count != count:
        remedy = "tell the operators: a processor or its SMT is off, or this is another kind of node"
        return Judgement(
            Status.FAIL,
            f"{observation.count} CPUs are online instead of {count}",
            observation.count,
            count,
            "CPUs",
            remedy,
        )
    if model is not None and not observation.models:
        return Judgement(Status.UNKNOWN, "the kernel does not name the processor", remedy="leave `model` out")
    others = [name for name in observation.models if model is not None and model not in name]
    if others:
        return Judgement(
            Status.FAIL,
            f"the processor is {others[0]}, not {model}",
            others[0],
            model,
            remedy="this is another kind of node",
        )
    wrong = [name for name in observation.governors if parameters.governors and name not in parameters.governors]
    if wrong:
        wanted = ", ".join(parameters.governors)
        remedy = f"tell the operators: `cpupower frequency-set --governor {parameters.governors[0]}`"
        return Judgement(Status.FAIL, f"a CPU has the governor {wrong[0]}", wrong[0], wanted, remedy=remedy)
    said = ", ".join(observation.governors) or "none, the kernel does not scale the clock"
    return Judgement(Status.PASS, f"{observation.count} CPUs; governor: {said}", observation.count, count, "CPUs")


def parse_cpuinfo(text: str) -> tuple[tuple[str, ...], int]:
    """Return the names of the processors, each once, and how many CPUs /proc/cpuinfo lists: those that are online."""
    found: dict[str, list[str]] = {}
    for name, value in _FIELD.findall(text):
        found.setdefault(name, []).append(value.strip())
    arm = zip(found.get("CPU implementer", []), found.get("CPU part", []), strict=False)
    names = found.get("model name") or [f"{implementer}/{part}" for implementer, part in arm]
    return tuple(sorted(set(names))), len(found.get("processor", []))


def read_governors(system: Path) -> tuple[str, ...]:
    """Return the governors under `system` (/sys/devices/system/cpu), each once."""
    files = system.glob("cpu[0-9]*/cpufreq/scaling_governor")
    return tuple(sorted({file.read_text(encoding="ascii").strip() for file in files}))


CHECK = Check(
    name="cpu",
    version=1,
    summary="the processors are those that the node should have, and do not save power",
    source="the protocol; governor performance: Linux, admin-guide/pm/cpufreq",
    parameters=Parameters,
    observe=observe,
    judge=judge,
)
