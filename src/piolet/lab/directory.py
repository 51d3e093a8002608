"""Where labs are, and what a lab's directory names outside of it: network links and cgroups cannot carry a path."""

from __future__ import annotations

import hashlib
from pathlib import Path

from piolet.core import config


def labs_directory(directory: Path | None = None) -> Path:
    """Return the directory of all labs, absolute and free of symbolic links, as daemons carry it in their marker."""
    return (directory or config.load().settings.lab.directory).resolve()


def short_digest(directory: Path) -> str:
    """Return six digits that name this lab's links and cgroups, which cannot carry its path."""
    return hashlib.sha256(str(directory).encode()).hexdigest()[:6]


def bridge_name(directory: Path) -> str:
    """Return the name of the lab's bridge; those of its links begin with it (at most 15 characters)."""
    return f"pl{short_digest(directory)}"


def group_name(directory: Path) -> str:
    """Return the name of the lab's directory in each hierarchy."""
    return f"piolet-{short_digest(directory)}"
