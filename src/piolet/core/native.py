"""Where the compiled parts are: the plugin, the launcher and the GPU simulator."""

from __future__ import annotations

from pathlib import Path

from piolet.core.errors import ToolMissing

DIRECTORY = Path(__file__).resolve().parent.parent / "_native"


def native(name: str) -> Path:
    """Return the path of the compiled file `name`; ToolMissing if it was not built."""
    path = DIRECTORY / name
    if not path.exists():
        raise ToolMissing(name, remedy="build the C parts with `make native` (needs gcc)")
    return path
