"""Chromium, to print a page as it prints: HTML to PDF. It is told to load nothing and to talk to nobody."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from piolet.core.errors import ToolError, ToolMissing
from piolet.core.files import replacing
from piolet.core.run import Runner, SystemRunner

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_S = 120.0
_QUIET = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-pdf-header-footer",
    "--virtual-time-budget=2000",
)


def argv(program: str, page: Path, pdf: Path, profile: Path, *, root: bool = False) -> list[str]:
    """Return the command that prints `page` to `pdf`; Chromium has no sandbox for root."""
    sandbox = ["--no-sandbox"] if root else []
    return [program, *_QUIET, *sandbox, f"--user-data-dir={profile}", f"--print-to-pdf={pdf}", page.resolve().as_uri()]


def print_pdf(page: Path, pdf: Path, *, runner: Runner | None = None, names: Sequence[str] = NAMES) -> None:
    """Print the HTML file `page` to `pdf`; a PDF that stood there is replaced only by a whole one.

    Raises:
        ToolMissing: no Chromium is on PATH.
        ToolError, ToolTimeout: it did not print.
        StorageError: the file system refused.
    """
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        raise ToolMissing("chromium", remedy="install Chromium or Chrome, or print the HTML page from your browser")
    with tempfile.TemporaryDirectory(prefix="piolet-chromium-") as profile, replacing(pdf) as partial:
        command = argv(program, page, partial, Path(profile), root=os.geteuid() == 0)
        result = (runner or SystemRunner()).run(command, timeout=TIMEOUT_S)
        if not partial.exists() or partial.stat().st_size == 0:
            raise ToolError(command, result.rc, result.stderr or "it wrote nothing")
