"""Copies of files on every node of a run: `--stage SRC[:DST]`, there before the program and gone after it.

Programs find them in `VARIABLE`; in a container, what comes from SRC or from below it comes from the copy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Protocol

from piolet.core.errors import PioletError, UsageError
from piolet.core.nodeset import NodeSet
from piolet.core.stopping import undisturbed
from piolet.core.text import plural, size
from piolet.env import ContainerPlan
from piolet.env.model import Image, ImageKind, Mount, MountKind
from piolet.launch.telling import say
from piolet.logbook.records import StagedCopy

if TYPE_CHECKING:  # staging needs a package that other runs do without
    from piolet.data.staging.stage import Outcome

VARIABLE = "PIOLET_STAGED"
"""Where the copies are, with colons between them, in the order of the options."""

ORIGIN = "--stage"


@dataclass(frozen=True, slots=True)
class Copy:
    """`source`, as all nodes see it, is copied to `target` on each node."""

    source: Path
    target: Path

    def __str__(self) -> str:
        return f"{self.source}:{self.target}"


class Staging(Protocol):
    """Has a copy on the nodes `used` inside its block."""

    def __call__(self, used: NodeSet, copy: Copy) -> AbstractContextManager[Outcome]:
        """Return the block."""
        ...


def parse(text: str, cwd: Path, directory: Path) -> Copy:
    """Parse SRC or SRC:DST; without DST the copy lies in `directory`."""
    source, _, target = text.partition(":")
    path = Path(os.path.normpath(cwd / source))
    if not source or not path.name or ":" in target or (target and not target.startswith("/")):
        remedy = "write SRC, or SRC:DST with DST absolute, as in /scratch/me/images.sqsh:/dev/shm/images.sqsh"
        raise UsageError(f'--stage cannot be "{text}"', remedy=remedy)
    return Copy(path, Path(os.path.normpath(target)) if target else directory / path.name)


def check(copies: Sequence[Copy]) -> None:
    """Raise a UsageError if a source is not there, or if copies meet."""
    if copies:
        import blake3  # noqa: F401, PLC0415 - staging needs it: find out before nodes are held
    for copy in copies:
        if not copy.source.exists():
            raise UsageError("there is nothing to stage", where=f"--stage {copy.source}", remedy="check the name")
        met = [other for other in copies if other is not copy and other.target.is_relative_to(copy.target)]
        if met:
            remedy = "give each a place of its own: --stage SRC:DST"
            raise UsageError(f"two copies at {copy.target}", where=f"--stage {met[0]}", remedy=remedy)


@contextmanager
def held(staging: Staging, used: NodeSet, copies: Sequence[Copy]) -> Iterator[tuple[StagedCopy, ...]]:
    """Have all copies on the nodes `used` inside the block, and yield how each went; NotStaged if a node has not."""
    blocks = ExitStack()
    try:
        yield tuple(_entered(blocks, staging, used, copy) for copy in copies)
    finally:
        with undisturbed():
            blocks.close()


def _entered(blocks: ExitStack, staging: Staging, used: NodeSet, copy: Copy) -> StagedCopy:
    say(f"staging {copy.source} to {copy.target} on {plural(len(used), 'node')}")
    outcome = blocks.enter_context(staging(used, copy))
    if outcome.lost:
        raise NotStaged(copy, outcome)
    say(f"{copy.target}: {size(outcome.size_bytes)} in {outcome.duration_s:.1f} s; {outcome.way}")
    return StagedCopy(str(copy.source), str(copy.target), outcome.size_bytes, outcome.duration_s, outcome.way)


class NotStaged(PioletError):  # noqa: N818 - the state of the copy
    """Some nodes have no copy; `lost` says why."""

    def __init__(self, copy: Copy, outcome: Outcome) -> None:
        self.lost = {node: f"{copy.target}: {reason}" for node, reason in outcome.lost.items()}
        node, reason = next(iter(outcome.lost.items()))
        more = f" (and {plural(len(self.lost) - 1, 'more node')})" if len(self.lost) > 1 else ""
        remedy = "look at the node, or leave it out: --exclude, --restarts"
        super().__init__(f"no copy at {copy.target}: {reason}{more}", where=node, remedy=remedy)


def in_plan(plan: ContainerPlan, copies: Sequence[Copy]) -> ContainerPlan:
    """Return `plan` with every copy mounted where it lies, and in place of its source, read-only."""
    image, mounts = plan.image, plan.mounts
    for copy in copies:
        image = _image_from(image, copy)
        mounts = tuple(_mount_from(mount, copy) for mount in mounts)
    own = (Mount(MountKind.BIND, str(copy.target), str(copy.target), ("ro",), ORIGIN) for copy in copies)
    return replace(plan, image=image, mounts=(*mounts, *own))


def _image_from(image: Image, copy: Copy) -> Image:
    path = _moved(image.path, copy)
    return replace(image, path=path) if path and image.kind is not ImageKind.REGISTRY else image


def _mount_from(mount: Mount, copy: Copy) -> Mount:
    path = _moved(PurePath(mount.source), copy) if mount.source else None
    if path is None:
        return mount
    flags = ("ro", *mount.flags) if mount.kind is MountKind.BIND and "ro" not in mount.flags else mount.flags
    return replace(mount, source=str(path), flags=flags, origin=f"{mount.origin}, {ORIGIN}")


def _moved(path: PurePath, copy: Copy) -> Path | None:
    return copy.target / path.relative_to(copy.source) if path.is_relative_to(copy.source) else None
