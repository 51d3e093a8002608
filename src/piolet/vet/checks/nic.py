"""The network adapters are there, carry traffic, and at the speed that they should have."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt

from piolet.core.nouns import Status
from piolet.tools import sysfs
from piolet.vet.check import Check, Context, Judgement

CLASSES = Path("/sys/class")
_ACTIVE = "ACTIVE"
_REMEDY = "tell the operators: a cable, a switch port or the adapter of this node"


@dataclass(frozen=True, slots=True)
class Parameters:
    """What must be there; what is left out is not judged.

    `devices`: names, as shell patterns: "mlx5_*" of InfiniBand, "hsn*" of others; a device that is named must be there.
    Without any, those of InfiniBand that the node has. `count`: at least so many. `min_gbit_per_s`: of each.
    `max_link_downs`: times that a link may have gone down since the boot.
    """

    devices: tuple[str, ...] = ()
    count: Annotated[int, Ge(1)] | None = None
    min_gbit_per_s: Annotated[float, Gt(0)] | None = None
    max_link_downs: Annotated[int, Ge(0)] | None = None


@dataclass(frozen=True, slots=True)
class Nic:
    """A port: `state` is ACTIVE, or the kernel's word; the speed in Gbit/s and the downs are None if not told."""

    name: str
    state: str
    gbit_per_s: float | None = None
    link_downs: int | None = None


def observe(parameters: Parameters, context: Context) -> tuple[Nic, ...]:  # noqa: ARG001 - the interface of checks
    """Read the ports of InfiniBand and, where they are named, the network interfaces."""
    return ports(CLASSES, parameters.devices)


def ports(classes: Path, devices: tuple[str, ...]) -> tuple[Nic, ...]:
    """Return the ports below `classes` (/sys/class) that `devices` name."""
    fabric = [_fabric_port(port) for port in sorted(classes.glob("infiniband/*/ports/*"))]
    if not devices:
        return tuple(fabric)
    every = fabric + [_interface(each) for each in sysfs.entries(classes / "net")]
    return tuple(each for each in every if any(fnmatch(each.name.partition("/")[0], name) for name in devices))


def _fabric_port(port: Path) -> Nic:
    state = (sysfs.text(port / "state") or "").rpartition(": ")[2]
    downs = sysfs.number(port / "counters/link_downed")
    return Nic(f"{port.parts[-3]}/{port.name}", state, sysfs.number(port / "rate"), downs)


def _interface(device: Path) -> Nic:
    state = sysfs.text(device / "operstate") or ""
    speed = sysfs.number(device / "speed")
    downs = sysfs.number(device / "carrier_down_count")
    told = speed / 1000 if speed is not None and speed > 0 else None
    return Nic(device.name, _ACTIVE if state == "up" else state, told, downs)


def judge(observation: tuple[Nic, ...], parameters: Parameters) -> Judgement:
    """Fail on one that is missing, then on one that is down, slow, or goes down again and again."""
    found, wanted = len(observation), parameters.count or (1 if parameters.devices else 0)
    if found < wanted:
        return Judgement(Status.FAIL, f"{found} of {wanted} adapters are there", found, wanted, "adapters", _REMEDY)
    for nic in observation:
        if nic.state != _ACTIVE:
            reason = f"{nic.name} is {nic.state or 'in no state'}"
            return Judgement(Status.FAIL, reason, nic.state, _ACTIVE, remedy=_REMEDY)
    least, most = parameters.min_gbit_per_s, parameters.max_link_downs
    for nic in observation:
        if least is not None and nic.gbit_per_s is None:
            return Judgement(Status.UNKNOWN, f"{nic.name} does not tell its speed", remedy="leave min_gbit_per_s out")
        if least is not None and nic.gbit_per_s is not None and nic.gbit_per_s < least:
            reason = f"{nic.name} has {nic.gbit_per_s:g} Gbit/s"
            return Judgement(Status.FAIL, reason, nic.gbit_per_s, least, "Gbit/s", _REMEDY)
        if most is not None and (nic.link_downs or 0) > most:
            reason = f"the link of {nic.name} went down {nic.link_downs} times"
            return Judgement(Status.FAIL, reason, nic.link_downs, most, "times", _REMEDY)
    active = ", ".join(each.name for each in observation)
    said = f"active: {active}" if active else "no adapter is asked for, and none of InfiniBand is here"
    return Judgement(Status.PASS, said, found, wanted, "adapters")


CHECK = Check(
    name="nic",
    version=1,
    summary="network adapters are there, active and as fast as they must be",
    source="the protocol; state 4, ACTIVE, is the only one in which a port carries data (InfiniBand specification)",
    parameters=Parameters,
    observe=observe,
    judge=judge,
)
