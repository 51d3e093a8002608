"""The site's table of file systems: what no tool tells, such as tiers and the purge policy. TOML, read strictly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PositiveInt, ValidationError

from piolet.core import toml
from piolet.core.text import did_you_mean, parse_size

Size = Annotated[int, BeforeValidator(lambda value: parse_size(value) if isinstance(value, str) else value)]
SLOW = frozenset({"hdd", "tape"})


class FileSystem(BaseModel):
    """One file system of the site: a table ``[NAME]`` of the file.

    `purge_days` counts from the last use by `purge_by`; `soft_inodes` and `soft_bytes` are what a user may have, for
    sites whose quota no tool tells; `fast` is where data that is in use should lie instead.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    path: str
    tier: Literal["", "hdd", "ssd", "nvme", "tape"] = ""
    purge_days: PositiveInt | None = None
    purge_by: Literal["access", "modification", "newest"] = "access"
    soft_inodes: PositiveInt | None = None
    soft_bytes: Size | None = None
    fast: str = ""


def read(path: Path) -> tuple[FileSystem, ...]:
    """Read the table; ConfigError with the line of what is wrong."""
    document = toml.read(path)
    found = []
    for name, values in document.data.items():
        if not isinstance(values, dict):
            raise document.error(f'"{name}" is not a table', name, remedy=f"write [{name}] and its keys below it")
        try:
            found.append(FileSystem.model_validate(values))
        except ValidationError as error:
            first = error.errors()[0]
            key = str(first["loc"][0])
            remedy = did_you_mean(key, FileSystem.model_fields)
            raise document.error(f"{key}: {first['msg']}", f"{name}.{key}", remedy=remedy) from error
    return tuple(found)


def holding(path: str, table: Sequence[FileSystem]) -> FileSystem | None:
    """Return the deepest file system of the table that `path` is on; None if the table does not know it."""
    above = [each for each in table if f"{path}/".startswith(each.path.rstrip("/") + "/")]
    return max(above, key=lambda each: len(each.path), default=None)
