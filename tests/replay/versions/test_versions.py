"""What older versions wrote is read by this one. A version that is released adds a directory of its own here.

A directory holds logbooks, a fleet's ledger and a container plan; paths in them were made neutral.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from piolet.cli.main import command
from piolet.core.native import native
from piolet.logbook import keeping, layout, merging
from piolet.logbook.layout import Logbook
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


def test_a_logbook_is_upgraded_in_place(version: Path, tmp_path: Path) -> None:
    """The logbook as a version before this one wrote it: without the columns and fields that came last."""
    shutil.copytree(version / "logbooks", tmp_path / "root")
    book, env = layout.find("4711", tmp_path / "root"), {"PIOLET_ROOT": str(tmp_path / "root")}
    new = {path: schema_of(path) for path in book.path.rglob("*.parquet")}
    aged = age(book)
    before = said("score", "4711", "--format", "json", env=env)
    old = said("logbook", "upgrade", "4711", "--dry-run", env=env).splitlines()
    assert {str(path) for path in aged} <= {line.removeprefix("would rewrite ") for line in old}
    assert {schema_of(path) for path in aged if path.suffix == ".parquet"} & set(new.values()) == set()
    (book.path / "outcome.json").chmod(0o400)
    assert said("logbook", "upgrade", "4711", env=env).count("rewrote") == len(old)
    assert {path: schema_of(path) for path in book.path.rglob("*.parquet")} == new
    assert json.loads((book.path / "outcome.json").read_text())["aborted_on"] == ""
    assert said("score", "4711", "--format", "json", env=env) == before
    assert "as this version writes it" in said("logbook", "upgrade", "4711", env=env)


def schema_of(path: Path) -> tuple[object, ...]:
    """Return the columns of a segment and the number of its rows."""
    quoted = merging.quoted(path)
    columns = duckdb.sql(f"DESCRIBE SELECT * FROM read_parquet({quoted})").fetchall()  # noqa: S608 - quoted
    rows = duckdb.sql(f"SELECT count(*) FROM read_parquet({quoted})").fetchall()  # noqa: S608 - same
    return (*((name, kind) for name, kind, *_ in columns), *rows[0])


def age(book: Logbook) -> list[Path]:
    """Take from a logbook what the newest versions added, and return the files that had any of it."""
    gpu = sorted(book.family("gpu").glob("*.parquet"))
    for path in gpu:
        rest = f"SELECT * EXCLUDE (source, nvlink_errors) FROM read_parquet({merging.quoted(path)})"  # noqa: S608 - same
        duckdb.sql(rest).write_parquet(str(path))
    outcome = json.loads(book.outcome.read_text())
    book.outcome.write_text(
        json.dumps({name: outcome[name] for name in outcome if name not in {"aborted_on", "next_job"}})
    )
    return [*gpu, book.outcome]


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
