"""A marimo notebook on the logbook of one job, with worked examples; a plain Python file that is its user's own."""

from __future__ import annotations

import importlib.util
import sys
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from piolet.core.errors import ToolMissing
from piolet.core.files import create_text
from piolet.logbook.layout import Logbook

NEEDED = ("marimo", "altair", "polars", "pyarrow")


def check_installed() -> None:
    """Raise a ToolMissing that says what to install, if the notebook could not run here."""
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise ToolMissing(package, remedy="pip install 'piolet[notebook]'")


def write(path: Path, logbook: Logbook) -> None:
    """Write the notebook on a logbook.

    Raises:
        UsageError: there is a file already, perhaps with somebody's work in it.
    """
    create_text(path, source(logbook))


def source(logbook: Logbook) -> str:
    """Return the notebook on a logbook, as Python."""
    template = (resources.files("piolet.watch") / "notebook.py.jinja").read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701 - Python
    return environment.from_string(template).render(job=repr(str(logbook.path.resolve())))


def editor(path: Path, *options: str) -> list[str]:
    """Return the program that opens a notebook: on this machine only, with a token, without asking for updates."""
    return [sys.executable, "-m", "marimo", "edit", "--no-sandbox", "--skip-update-check", *options, str(path)]
