"""What must run on the node does: units of systemd, or programs by their name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import ToolMissing
from piolet.core.nouns import Status
from piolet.core.run import Runner, SystemRunner
from piolet.tools import sysfs
from piolet.vet.check import Check, Context, Judgement

PROC = Path("/proc")
_NAME_CHARS = 15
"""The kernel keeps so many characters of a program's name (proc(5), comm)."""

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """`units`: of systemd, each of which must be active. `programs`: names, each of which some process must have."""

    units: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Service:
    """A unit or a program, and the state that it is in; one that runs is `active`."""

    name: str
    state: str


def observe(parameters: Parameters, context: Context) -> tuple[Service, ...]:  # noqa: ARG001 - the interface of checks
    """Ask systemd for the units, and the kernel for the programs."""
    return (*units(SystemRunner(), parameters.units), *programs(PROC, parameters.programs))


def units(runner: Runner, names: Sequence[str]) -> tuple[Service, ...]:
    """Return units with their state: `systemctl is-active` prints one a line, in the order of the names."""
    if not names:
        return ()
    try:
        states = runner.run(["systemctl", "is-active", "--", *names], timeout=_TIMEOUT_S, ok=None).stdout.split()
    except ToolMissing:
        states = []
    return tuple(Service(name, state) for name, state in zip(names, [*states, *["unknown"] * len(names)], strict=False))


def programs(proc: Path, names: Sequence[str]) -> tuple[Service, ...]:
    """Return programs with their state: active if a process has the name."""
    running = {sysfs.text(directory / "comm") for directory in proc.glob("[0-9]*")} if names else set()
    return tuple(Service(name, "active" if name[:_NAME_CHARS] in running else "not running") for name in names)


def judge(observation: tuple[Service, ...], parameters: Parameters) -> Judgement:  # noqa: ARG001 - the interface of checks
    """Fail on services that do not run; unknown if systemd tells nothing, or nothing was asked for."""
    if not observation:
        return Judgement(Status.UNKNOWN, "no service is named", remedy="name some in `units` or `programs`")
    bad = [each for each in observation if each.state != "active"]
    count = len(observation)
    if not bad:
        return Judgement(Status.PASS, f"{count} services run", count, count, "services")
    reason = ", ".join(f"{each.name}: {each.state}" for each in bad)
    status = Status.UNKNOWN if all(each.state == "unknown" for each in bad) else Status.FAIL
    remedy = "tell the operators: `systemctl status` of it on the node"
    return Judgement(status, reason, count - len(bad), count, "services", remedy)


CHECK = Check(
    name="services",
    version=1,
    summary="the services of the node run",
    source="the protocol; the states are those of systemctl(1), is-active",
    parameters=Parameters,
    observe=observe,
    judge=judge,
)
