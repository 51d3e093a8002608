"""What differs between two environments, by what they resolve to and not by how they are written. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from piolet.env.plan import ContainerPlan


@dataclass(frozen=True, slots=True)
class Side:
    """A value of one of the two environments, and where it comes from."""

    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A key whose value differs; None where an environment has no such key."""

    key: str
    a: Side | None
    b: Side | None


def differences(a: ContainerPlan, b: ContainerPlan) -> tuple[Difference, ...]:
    """Return every difference, in the order of the rows of `a`, then what only `b` has.

    Mounts are told apart by their target. The order of the targets that both have counts too, since a later mount
    covers an earlier one.
    """
    ours, theirs = _sides(a), _sides(b)
    found = [
        Difference(key, ours.get(key), theirs.get(key))
        for key in dict.fromkeys((*ours, *theirs))
        if _value(ours.get(key)) != _value(theirs.get(key))
    ]
    return (*found, *_order(a, b))


def _value(side: Side | None) -> str | None:
    return side.value if side else None


def _sides(plan: ContainerPlan) -> dict[str, Side]:
    targets = (f"mount {mount.target}" for mount in plan.mounts)
    sides: dict[str, Side] = {}
    for key, value, origin in plan.rows():
        name = next(targets) if key.startswith("mounts[") else key
        covered = sides.get(name)
        if covered:
            sides[name] = Side(f"{covered.value}, then {value}", f"{covered.origin}, {origin}")
        else:
            sides[name] = Side(value, origin)
    return sides


def _order(a: ContainerPlan, b: ContainerPlan) -> Iterator[Difference]:
    common = {mount.target for mount in a.mounts} & {mount.target for mount in b.mounts}
    ours, theirs = (
        ", ".join(dict.fromkeys(mount.target for mount in plan.mounts if mount.target in common)) for plan in (a, b)
    )
    if ours != theirs:
        yield Difference("order of mounts", Side(ours, ""), Side(theirs, ""))
