"""A new EDF from a template: commented, and right before it is written."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path

from piolet.core import toml
from piolet.core.errors import UsageError
from piolet.core.files import create_text
from piolet.env import edf
from piolet.env.lookup import Context, is_path

TEMPLATES = Path(__file__).parent / "templates"


class Template(StrEnum):
    """What an environment is for; each is a file below templates/."""

    PYTORCH = "pytorch"
    JAX = "jax"
    MPI = "mpi"


def new(name: str, template: Template, image: str, context: Context) -> Path:
    """Write the EDF `name` from a template and return its path: a name goes to the first directory of the search path.

    Raises:
        UsageError: the file exists (it is never replaced), or the name or the image cannot stand in one.
        StorageError: it cannot be written.
    """
    path = place(name, context)
    content = text(template, image)
    edf.from_document(toml.parse(content.encode("utf-8", "surrogateescape"), path))
    create_text(path, content)
    return path


def place(name: str, context: Context) -> Path:
    """Return where the new EDF `name` goes, a name or a path with a `/`."""
    if not is_path(name):
        if not name or name.endswith(".toml"):
            raise UsageError(f"{name!r} is not the name of an environment", remedy="names have no suffix: write `ml`")
        return context.search_path()[0] / f"{name}.toml"
    if not name.endswith(".toml"):
        raise UsageError(f"{name!r} does not end in .toml", remedy=f"write {name.rstrip('/')}.toml")
    return context.cwd / name


def text(template: Template, image: str) -> str:
    """Return the text of a new EDF."""
    source = (TEMPLATES / f"{template.value}.toml").read_text("utf-8")
    quoted = json.dumps(image, ensure_ascii=False).replace(
        "\x7f", "\\u007f"
    )  # as a TOML string, which JSON's nearly is
    return source.replace('"IMAGE"', quoted)
