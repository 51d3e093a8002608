from __future__ import annotations

import subprocess
from pathlib import Path

from piolet.logbook.provenance import versions
from piolet.tools.git import revision


def test_the_revision_of_a_directory_in_a_repository(tmp_path: Path) -> None:
    assert revision(tmp_path) == ""
    git = ("git", "-C", str(tmp_path), "-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    (tmp_path / "train.py").write_text("one\n")
    for argv in (("init", "-q"), ("add", "."), ("commit", "-qm", "Begin")):
        subprocess.run([*git, *argv], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert revision(tmp_path) == commit[:12]
    (tmp_path / "train.py").write_text("two\n")
    assert revision(tmp_path) == f"{commit[:12]}-dirty"
    assert versions(tmp_path)["code"] == f"{commit[:12]}-dirty"
