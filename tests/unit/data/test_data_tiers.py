"""Striping and moving: plans, what is done, and what is refused. Lustre's lfs is played by a runner."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from piolet.cli.main import run_command
from piolet.core.errors import PioletError, Refused, ToolError, UsageError
from piolet.core.run import Result
from piolet.data import moving, striping, transfers
from piolet.data.advice import STRIPING, UNSTRIPED_BYTES
from piolet.data.striping import ONE_STRIPE, Contents
from piolet.tools.lustre import Component
from piolet.tools.mountinfo import Mount

LUSTRE = Mount("/scratch", "lustre")
PLAIN = (Component(None, 1, 1 << 20),)


class Lfs:
    """lfs as its manual pages describe it: setstripe is remembered, getstripe prints it. `most` OSTs are there."""

    def __init__(self, most: int = 64) -> None:
        self.layouts: dict[str, list[str]] = {}
        self.done: list[list[str]] = []
        self.most = most

    def run(self, argv: Sequence[str], *, timeout: float, ok: Sequence[int] | None = (0,), stdin: str | None = None):
        assert timeout
        assert (ok, stdin) == ((0,), None)
        _, verb, *options, path = argv
        if verb == "getstripe":
            return Result(tuple(argv), 0, self._printed(self.layouts.get(path, ["-E", "-1", "-c", "1"])), "")
        if verb == "setstripe" and not Path(path).is_dir():
            raise ToolError(argv, 1, "no such directory")
        self.layouts[path] = options
        self.done.append(list(argv))
        return Result(tuple(argv), 0, "", "")

    def _printed(self, options: Sequence[str]) -> str:
        text, units = "", {"k": 10, "M": 20, "G": 30}
        for key, value in zip(options[::2], options[1::2], strict=True):
            if key == "-E":
                end = "EOF" if value == "-1" else int(value[:-1]) << units[value[-1]]
                text += f"    lcme_id: {len(text)}\n    lcme_extent.e_end: {end}\n"
            elif key == "-c":
                text += f"      lmm_stripe_count: {min(int(value), self.most)}\n"
        return text


def test_a_new_directory_is_made_first_striped_and_read_back(tmp_path):
    directory, lfs = tmp_path / "runs/new", Lfs()

    plan = striping.prepare(directory, lfs, LUSTRE)
    commands = list(striping.apply(plan, lfs, migrate=False))

    assert [command[0:2] for command in commands] == [["mkdir", "-p"], ["lfs", "setstripe"]]
    assert shlex.join(commands[1]) == f"lfs setstripe -E 4M -c 1 -E 64M -c 4 -E -1 -c 32 -S 4M {directory}"
    assert directory.is_dir()
    again = striping.prepare(directory, lfs, LUSTRE)
    assert again.commands() == []


def test_a_file_system_that_takes_another_layout_is_found_out(tmp_path):
    lfs = Lfs(most=8)

    with pytest.raises(Refused, match="another layout than was set"):
        list(striping.apply(striping.prepare(tmp_path, lfs, LUSTRE), lfs, migrate=False))


def test_large_files_on_one_ost_are_migrated_only_if_asked_and_quiet(tmp_path):
    for name, age_s in (("old", 7200), ("busy", 0)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(UNSTRIPED_BYTES)
        now_s = (tmp_path / name).stat().st_mtime
        os.utime(tmp_path / name, (now_s - age_s, now_s - age_s))
    lfs = Lfs()

    plan = striping.prepare(tmp_path, lfs, LUSTRE)
    assert plan.migrate == (tmp_path / "old",)
    assert [command[1] for command in striping.apply(plan, lfs, migrate=False)] == ["setstripe"]
    assert [command[1] for command in striping.apply(plan, lfs, migrate=True)] == ["setstripe", "migrate"]
    assert lfs.done[-1][-1] == str(tmp_path / "old")


def test_what_fits_depends_on_what_is_there():
    assert striping.plan(Path("/d"), Contents(9, 9), PLAIN).wanted == ONE_STRIPE
    assert striping.plan(Path("/d"), Contents(9, 9), PLAIN).commands() == [], "it has one stripe already"
    assert striping.plan(Path("/d"), Contents(9, 8), PLAIN).wanted == STRIPING
    assert striping.plan(Path("/d"), Contents(), None).wanted == STRIPING
    assert "every OST of the pool" in striping.plan(Path("/d"), Contents(), (Component(None, -1),)).reason


def test_elsewhere_than_on_lustre_nothing_is_striped(tmp_path, capsys):
    assert run_command(["data", "layout", str(tmp_path)]) == 2
    assert "only Lustre has stripes" in capsys.readouterr().err
    assert run_command(["data", "layout", str(tmp_path), "--migrate"]) == 2
    assert "give --apply too" in capsys.readouterr().err


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "deep").mkdir(parents=True)
    (root / "a").write_bytes(b"a" * 100)
    (root / "deep/b").write_bytes(os.urandom(5 << 20))
    (root / "link").symlink_to("a")
    os.utime(root / "a", ns=(1_000_000_000, 2_000_000_000))
    (root / "deep").chmod(0o750)
    return root


def test_a_directory_moves_with_its_modes_times_and_links(source, tmp_path):
    before = (source / "deep/b").read_bytes()
    seen = []

    done = moving.move(source, tmp_path / "far/target", keep=False, report=lambda now, of: seen.append((now, of)))

    target = tmp_path / "far/target"
    assert (done.files, done.size_bytes, done.deleted) == (2, 100 + (5 << 20), True)
    assert seen[-1] == (2, 2)
    assert not source.exists()
    assert (target / "deep/b").read_bytes() == before
    assert (target / "a").stat().st_mtime_ns == 2_000_000_000
    assert (target / "link").readlink() == Path("a")
    assert (target / "deep").stat().st_mode & 0o777 == 0o750
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_file_is_copied_and_kept(source, tmp_path):
    done = moving.move(source / "a", tmp_path / "copy", keep=True)

    assert (done.deleted, (tmp_path / "copy").read_bytes()) == (False, b"a" * 100)
    assert (source / "a").exists()


def test_after_a_kill_it_goes_on_with_what_is_there(source, tmp_path):
    partial = tmp_path / ".target.moving"
    (partial / "deep").mkdir(parents=True)
    (partial / "a").write_bytes(b"a" * 100)
    os.utime(partial / "a", ns=(0, 2_000_000_000))
    began_ns = (partial / "a").stat().st_ctime_ns
    (partial / "deep/b").write_bytes(b"half")

    moving.move(source, tmp_path / "target", keep=True)

    assert (tmp_path / "target/a").stat().st_ctime_ns == began_ns, "it was not copied again"
    assert (tmp_path / "target/deep/b").read_bytes() == (source / "deep/b").read_bytes()


def test_a_source_that_changes_or_grows_meanwhile_stays(source, tmp_path, monkeypatch):
    finish = moving._finish_directories

    def meanwhile(*arguments: Path) -> None:
        finish(*arguments)
        (source / "new").touch()

    monkeypatch.setattr(moving, "_finish_directories", meanwhile)
    with pytest.raises(PioletError, match="files were added"):
        moving.move(source, tmp_path / "one", keep=False)
    monkeypatch.setattr(moving, "_finish_directories", lambda *two: (finish(*two), (source / "a").write_text("b")))
    with pytest.raises(PioletError, match="has changed"):
        moving.move(source, tmp_path / "two", keep=False)
    assert (source / "deep/b").exists()


def test_what_cannot_be_moved_is_refused(source, tmp_path):
    (tmp_path / "there").touch()
    with pytest.raises(Refused, match="there already"):
        moving.move(source, tmp_path / "there", keep=True)
    with pytest.raises(Refused, match="lies in what is moved"):
        moving.move(source, source / "deep/er", keep=True)
    with pytest.raises(UsageError, match="nothing to move"):
        moving.move(tmp_path / "absent", tmp_path / "x", keep=True)
    os.mkfifo(source / "pipe")
    with pytest.raises(Refused, match="neither a file"):
        moving.move(source, tmp_path / "x", keep=True)


def test_the_job_says_what_it_waits_for(source, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_command(["data", "move", str(source), "far", "--after", "7", "--after", "8", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "#SBATCH --dependency=afterok:7:8\n#SBATCH --kill-on-invalid-dep=yes\n" in said
    assert said.rstrip().endswith(f"data move --here {source} {tmp_path}/far")
    assert run_command(["data", "move", str(source), "far", "--here", "--dry-run"]) == 2
    with pytest.raises(UsageError):
        transfers.script(transfers.Transfer(tmp_path / "absent", tmp_path / "x"))
    assert transfers.script(transfers.Transfer(tmp_path / "absent", tmp_path / "x"), after=[3])
