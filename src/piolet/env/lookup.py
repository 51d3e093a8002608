"""Finding EDF files: by path, or by name in the search path; and the chain of what each builds on.

A value with a `/`, or that starts with `.`, is a path, relative to the caller's directory. Anything else is a
name: `NAME.toml` in each directory of EDF_PATH, else of ~/.edf; then in the site's directories (env.search_path),
then in /etc/edf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from piolet.core.errors import UsageError
from piolet.core.settings import Settings
from piolet.core.text import did_you_mean
from piolet.env import edf
from piolet.env.expanding import expand

SITE_DIRECTORY = Path("/etc/edf")
MOST_LEVELS = 10  # as in the CSCS Container Engine


@dataclass(frozen=True, slots=True)
class Context:
    """Where names are looked up: the caller's variables and directory, and the settings."""

    environ: Mapping[str, str]
    cwd: Path
    settings: Settings
    used: list[Path] = field(default_factory=list, compare=False)
    """Files and directories that were looked at, there or not."""

    def search_path(self) -> tuple[Path, ...]:
        """Return the directories in which names are looked up, first wins."""
        edf_path = self.environ.get("EDF_PATH")
        home = self.environ.get("HOME")
        if edf_path:
            own = [Path(part) for part in edf_path.split(":") if part.startswith("/")]
        else:
            own = [Path(home) / ".edf"] if home else []
        return (*own, *self.settings.env.search_path, SITE_DIRECTORY)


def is_path(name: str) -> bool:
    """Return whether `name` is the path of an EDF file rather than a name in the search path."""
    return "/" in name or name.startswith(".")


def find(name: str, context: Context) -> Path:
    """Return the EDF file that `name` means.

    Raises:
        UsageError: there is none.
    """
    if not name:
        raise UsageError("the name of the environment is empty", remedy="give a name or the path of an EDF file")
    if is_path(name):
        path = context.cwd / name
        context.used.append(path)
        if not path.is_file():
            raise UsageError("no such environment file", where=str(path), remedy="check the path")
        return path
    for directory in context.search_path():
        path = directory / f"{name}.toml"
        context.used.append(path)
        if path.is_file():
            return path
    raise _not_found(name, context)


def chain(path: Path, context: Context) -> tuple[edf.Edf, ...]:
    """Return the EDFs that make up the one at `path`, each after those it builds on.

    Raises:
        UsageError, ConfigError: a file is missing or wrong, or they build on one another in a circle or too deeply.
    """
    return _with_bases(path, (), context)


def _with_bases(path: Path, above: tuple[Path, ...], context: Context) -> tuple[edf.Edf, ...]:
    own = edf.read(path)
    here = (*above, path.resolve())
    found: list[edf.Edf] = []
    for base in own.bases:
        base_path = _base_path(base, context)
        _check_chain(base, here, base_path.resolve())
        found += _with_bases(base_path, here, context)
    return (*found, own)


def _base_path(base: edf.Value, context: Context) -> Path:
    name = expand(base, context.environ)
    try:
        return find(name, context)
    except UsageError as error:
        raise base.error(f"base environment {name!r}: {error.what}", error.remedy) from error


def _check_chain(base: edf.Value, here: tuple[Path, ...], following: Path) -> None:
    shown = " -> ".join(str(path) for path in (*here, following))
    if following in here:
        raise base.error(f"environments build on one another in a circle: {shown}", "break the circle")
    if len(here) == MOST_LEVELS:
        raise base.error(
            f"environments build on one another over more than {MOST_LEVELS} levels: {shown}", "merge some of them"
        )


def _not_found(name: str, context: Context) -> UsageError:
    directories = context.search_path()
    known = {path.stem for directory in directories for path in directory.glob("*.toml")}
    stem = name.removesuffix(".toml")
    if (context.cwd / name).is_file():
        hint = f"to use the file in this directory, write ./{name}"
    elif stem in known:
        hint = f'names have no suffix: write "{stem}"'
    else:
        hint = did_you_mean(name, known)
    searched = ":".join(str(directory) for directory in directories)
    return UsageError(f'no environment "{name}"', where=f"search path {searched}", remedy=hint)
