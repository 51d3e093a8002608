from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from piolet.logbook.layout import Logbook, create


@pytest.fixture
def logbook(tmp_path: Path) -> Logbook:
    return create(tmp_path / "root", "alps", "42")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", directory], check=True, timeout=10)
    yield directory
    subprocess.run(["umount", directory], check=True, timeout=10)
