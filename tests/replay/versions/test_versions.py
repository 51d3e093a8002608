"""What older versions wrote is read by this one. A version that is released adds a directory of its own here.

A directory holds logbooks, a fleet's ledger and a container plan; paths in them were made neutral.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from piolet.cli.main import command
from piolet.core.native import native
from piolet.logbook import keeping, layout
from piolet.watch import archive

VERSIONS = sorted(path for path in Path(__file__).parent.iterdir() if path.name[0].isdigit())

pytestmark = pytest.mark.parametrize("version", VERSIONS, ids=lambda path: path.name)


def said(*argv: str, env: dict[str, str]) -> str:
    """Run a command of this version and return what it prints."""
    done = CliRunner().invoke(command, argv, env=env, standalone_mode=False)
    assert done.exception is None, done.output
    return done.output


def test_a_logbook_is_whole_scored_and_asked(version: Path, tmp_path: Path) -> None:
    shutil.copytree(version / "logbooks", tmp_path / "root")
    env = {"PIOLET_ROOT": str(tmp_path / "root")}
    book = layout.find("4711", tmp_path / "root")
    assert keeping.verify(book) == []
    assert json.loads(said("score", "4711", "--format", "json", env=env))["score"] == pytest.approx(0.258, abs=0.005)
    report = tmp_path / "report.html"
    said("score", "4711", "--html", str(report), env=env)
    assert "tensor-active" in report.read_text()
    assert "3" in said("watch", "sql", "4711", "SELECT count(DISTINCT node) AS nodes FROM gpu", env=env)
    with archive.open_logbook(book) as opened:
        assert opened.outcome().state == "COMPLETED"
        assert len(opened.checks()) == 32


def test_the_ledger_of_a_fleet_goes_on(version: Path, tmp_path: Path) -> None:
    shutil.copy2(version / "fleet.db", tmp_path / "fleet.db")
    env = {"PIOLET_FLEET_DATABASE": str(tmp_path / "fleet.db")}
    assert "unchanged" in said("fleet", "ledger", "verify", env=env)
    again = said("fleet", "gather", "--no-slurm", str(version / "logbooks"), env=env)
    assert "no new" in again or "0 new" in again, again


@pytest.mark.skipif(os.geteuid() != 0, reason="a plan of a directory that root owns is for root")
def test_a_plan_starts_its_program(version: Path) -> None:
    told = 'echo "$WORDS"; head -n 1 /etc/passwd; ls host/hostname'
    argv = [native("piolet-enter"), version / "container.plan", "--", "/bin/sh", "-c", told]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["a b", "ada:x:1000:1000::/home/ada:/bin/sh", "host/hostname"]
