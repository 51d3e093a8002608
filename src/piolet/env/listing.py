"""What is in the search path: every EDF file, with what is wrong with it if something is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from piolet.core.errors import PioletError
from piolet.core.run import Runner
from piolet.env.compiling import compile_found
from piolet.env.lookup import Context


class State(StrEnum):
    """Whether a job can use it by its name."""

    RIGHT = "right"
    HIDDEN = "hidden"  # right, but a file earlier in the search path has the name
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Listed:
    """An EDF file of the search path, or a directory of it that cannot be read (`name` is empty)."""

    name: str
    path: Path
    state: State
    image: str = ""
    error: str = ""

    @property
    def summary(self) -> str:
        """The image, or the first line of what is wrong."""
        return self.image or self.error.partition("\n")[0]


def listed(context: Context, runner: Runner | None = None) -> tuple[Listed, ...]:
    """Return all EDF files of the search path, in its order, each directory by name.

    A file is judged as `piolet env check` judges it. Directories that do not exist hold nothing.
    """
    found: list[Listed] = []
    for directory in dict.fromkeys(context.search_path()):
        found += _in_directory(directory, {entry.name for entry in found}, context, runner)
    return tuple(found)


def _in_directory(directory: Path, before: set[str], context: Context, runner: Runner | None) -> Iterator[Listed]:
    try:
        paths = sorted(directory.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        yield Listed("", directory, State.BROKEN, error=f"cannot be read: {error.strerror}")
        return
    for path in paths:
        if path.suffix == ".toml" and not path.name.startswith("."):
            yield _judged(path, hidden=path.stem in before, context=context, runner=runner)


def _judged(path: Path, *, hidden: bool, context: Context, runner: Runner | None) -> Listed:
    try:
        plan = compile_found(path, context, runner, fetch=False)
    except PioletError as error:
        return Listed(path.stem, path, State.BROKEN, error=str(error))
    return Listed(path.stem, path, State.HIDDEN if hidden else State.RIGHT, plan.image.shown())
