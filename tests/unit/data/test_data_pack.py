"""Packing with the real mksquashfs and tarfile, and reading back."""

import os
import shutil
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.cli.main import run_command
from piolet.core.errors import ParseError, StorageError, ToolError
from piolet.core.run import SystemRunner
from piolet.data import digests
from piolet.data.packing import checksums_of, pack_squashfs, verify_squashfs
from piolet.data.shards import Sample, divided, pack_shards, sample_key, verify_shards

RUNNER = SystemRunner()


@pytest.fixture
def source(tmp_path) -> Path:
    """Ten samples of two files, one with a strange name, one empty; a symbolic link."""
    root = tmp_path / "source"
    (root / "train").mkdir(parents=True)
    for number in range(10):
        (root / "train" / f"{number:03d}.jpg").write_bytes(os.urandom(3000))
        (root / "train" / f"{number:03d}.seg.png").write_bytes(bytes([number]) * 700)
    (root / "odd \\ name\n.txt").write_bytes(b"odd")
    (root / "empty.txt").touch()
    (root / "link").symlink_to("empty.txt")
    return root


def _pack(source: Path, target: Path):
    return pack_squashfs(source, target, RUNNER, lambda _: None)


def _shards(source: Path, target: Path, seed: int | None = None):
    return pack_shards(source, target, shard_bytes=20_000, seed=seed, report=lambda _: None)


def test_an_image_can_be_read_back_and_made_again(source, tmp_path):
    packed = _pack(source, tmp_path / "a.sqsh")
    shutil.copytree(source, tmp_path / "copy", symlinks=True)
    _pack(tmp_path / "copy", tmp_path / "b.sqsh")

    assert (packed.files, packed.source_bytes) == (22, 37_003)
    assert verify_squashfs(packed.path, RUNNER) == (22, [])
    assert packed.path.read_bytes() == (tmp_path / "b.sqsh").read_bytes()
    assert checksums_of(packed.path).read_text() == checksums_of(tmp_path / "b.sqsh").read_text()


def test_what_differs_from_the_checksums_is_named(source, tmp_path):
    _pack(source, tmp_path / "a.sqsh")
    (source / "empty.txt").write_text("no longer")
    (source / "train" / "000.jpg").unlink()
    (source / "new.txt").touch()
    _pack(source, tmp_path / "b.sqsh")
    shutil.copy(checksums_of(tmp_path / "a.sqsh"), checksums_of(tmp_path / "b.sqsh"))

    _, wrong = verify_squashfs(tmp_path / "b.sqsh", RUNNER)

    assert wrong == ["empty.txt: different", "train/000.jpg: missing", "new.txt: not in the list"]


@pytest.mark.parametrize("harm", ["torn", "garbage", "damaged"])
def test_a_damaged_image_is_never_right(source, tmp_path, harm):
    image = _pack(source, tmp_path / "a.sqsh").path
    content = bytearray(image.read_bytes())
    content[200:3000] = bytes(2800) if harm == "damaged" else content[200:3000]
    image.write_bytes({"torn": content[: len(content) // 2], "garbage": b"x" * 9000, "damaged": content}[harm])

    try:
        wrong = verify_squashfs(image, RUNNER)[1]
    except (ParseError, ToolError) as error:
        wrong = [error.what]
    assert wrong
    assert not list(tmp_path.glob(".verify-*"))


def test_a_failure_leaves_nothing_behind(source, tmp_path):
    failing = SystemRunner({"PATH": str(tmp_path / "bin")})
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mksquashfs").write_text("#!/bin/sh\necho no space >&2; exit 1\n")
    (tmp_path / "bin" / "mksquashfs").chmod(0o755)
    before = sorted(tmp_path.iterdir())

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "bin"))
        with pytest.raises(ToolError, match="no space"):
            pack_squashfs(source, tmp_path / "a.sqsh", failing, lambda _: None)
    with pytest.raises(RuntimeError):
        pack_shards(source, tmp_path / "d", shard_bytes=1, seed=None, report=_fail)

    assert sorted(tmp_path.iterdir()) == before


def _fail(_: int) -> None:
    raise RuntimeError


def test_shards_hold_every_sample_whole_and_can_be_made_again(source, tmp_path):
    packed = _shards(source, tmp_path / "a", seed=7)
    _shards(source, tmp_path / "b", seed=7)
    _shards(source, tmp_path / "c", seed=8)

    assert packed.files == 22
    assert verify_shards(tmp_path / "a") == (22, [])
    names = []
    for path in sorted((tmp_path / "a").glob("*.tar")):
        with tarfile.open(path) as shard:
            members = shard.getnames()
        assert {sample_key(name) for name in members}.isdisjoint(map(sample_key, names))
        names += members
    assert sorted(names) == digests.files_below(source)
    content = [[path.read_bytes() for path in sorted((tmp_path / each).iterdir())] for each in "abc"]
    assert content[0] == content[1] != content[2]


def test_shards_that_were_changed_are_named(source, tmp_path):
    _shards(source, tmp_path / "a")
    shard = tmp_path / "a" / "shard-000001.tar"
    shard.write_bytes(shard.read_bytes()[:1000])

    _, wrong = verify_shards(tmp_path / "a")

    assert "shard-000001.tar: different" in wrong
    assert any(each.endswith(": missing") for each in wrong)
    with pytest.raises(StorageError):
        verify_shards(source)


@given(st.lists(st.integers(1, 100)), st.integers(1, 300))
def test_shards_are_no_larger_than_asked_unless_one_sample_is(sizes, most):
    every = [Sample((str(number),), size) for number, size in enumerate(sizes)]
    shards = list(divided(every, most))

    assert [sample for shard in shards for sample in shard] == every
    assert all(sum(sample.tar_bytes for sample in shard) <= most or len(shard) == 1 for shard in shards)


@given(st.dictionaries(st.text(min_size=1).filter(lambda name: "\0" not in name), st.just("ab" * 32)))
def test_lists_of_checksums_survive_any_name(found):
    assert digests.parse(digests.text_of(found.items()), "x") == found


def test_a_torn_list_of_checksums_is_an_error():
    with pytest.raises(ParseError, match="not a line"):
        digests.parse("abc", "x")


def test_the_commands(source, tmp_path, capsys):
    image = tmp_path / "a.sqsh"
    assert run_command(["data", "pack", str(source), str(image), "--verify"]) == 0
    assert f'"{image}:{source}:sqsh"' in capsys.readouterr().out
    assert run_command(["data", "pack", str(source), str(tmp_path / "d"), "--shards", "--shard-size", "20kB"]) == 0
    assert "shard-{000000..000003}.tar" in capsys.readouterr().out

    checksums_of(image).write_text(f"{'0' * 64}  empty.txt\n")
    assert run_command(["data", "verify", str(image)]) == 1
    assert "empty.txt: different" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("source/in.sqsh", (), "lies in what is packed"),
        ("there", (), "is there already"),
        ("new", ("--shards", "--shard-size", "x"), "--shard-size"),
    ],
)
def test_wrong_targets_are_one_clear_error(source, tmp_path, capsys, target, options, words):  # noqa: PLR0917 - fixtures and a row
    (tmp_path / "there").touch()

    assert run_command(["data", "pack", str(source), str(tmp_path / target), *options]) == 2
    assert words in capsys.readouterr().err
    assert run_command(["data", "pack", str(tmp_path / "there"), str(tmp_path / "x")]) == 2
