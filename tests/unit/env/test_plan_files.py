"""The plan as text and as a file."""

import hashlib
import json
import os
import shutil
import subprocess
import zlib

import pytest

from piolet.core.errors import ParseError, StorageError
from piolet.core.run import SystemRunner
from piolet.env import ContainerPlan, lock, write_plan
from piolet.env.model import Image, ImageKind, Mount, MountKind, Text, Variable
from piolet.tools import squashfs


def make_plan(path, **values):
    image = Image(ImageKind.SQUASHFS, path, "here", 4096, 17)
    return ContainerPlan(name="demo", image=image, **values)


def test_text(tmp_path):
    plan = make_plan(
        tmp_path / "a b.sqsh",
        writable=False,
        workdir="/w",
        mounts=(
            Mount(MountKind.BIND, "/a", "/b", ("ro", "dev"), ""),
            Mount(MountKind.TMPFS, "", "/t", (), ""),
        ),
        variables=(Variable("A", "x\n%", ""), Variable("B", None, ""), Variable("C", "", "")),
        texts=(Text("/etc/passwd", "ada:x\n", ""),),
    )
    body = (
        "piolet-plan 1\n"
        "name demo\n"
        f"image squashfs {tmp_path}/a%20b.sqsh 4096 17\n"
        "root readonly\n"
        "mount bind /a /b ro,dev\n"
        "mount tmpfs /t -\n"
        "prepend /etc/passwd ada:x%0a\n"
        "set A x%0a%25\n"
        "unset B\n"
        "set C %\n"
        "workdir /w\n"
    )
    assert plan.text() == f"{body}end {zlib.crc32(body.encode()):08x}\n"


def test_a_plan_is_named_after_its_content_and_private(tmp_path):
    plan = make_plan(tmp_path / "image.sqsh")
    path = write_plan(plan, tmp_path / "plans")
    written = path.stat()
    assert path.read_text() == plan.text()
    assert written.st_mode & 0o777 == 0o600
    assert write_plan(plan, tmp_path / "plans") == path
    assert path.stat().st_mtime_ns == written.st_mtime_ns
    path.write_text("torn")
    assert write_plan(plan, tmp_path / "plans").read_text() == plan.text()
    assert [entry.name for entry in (tmp_path / "plans").iterdir()] == [path.name]


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "plans").write_text("a file")
    with pytest.raises(StorageError) as caught:
        write_plan(make_plan(tmp_path / "image.sqsh"), tmp_path / "plans")
    assert "plans" in caught.value.where


@pytest.fixture
def squash(tmp_path):
    if shutil.which("mksquashfs") is None:
        pytest.skip("needs mksquashfs")
    (tmp_path / "tree/etc").mkdir(parents=True)
    (tmp_path / "tree/etc/environment").write_text("A=b\n")
    image = tmp_path / "image.sqsh"
    argv = ["mksquashfs", tmp_path / "tree", image, "-quiet", "-no-progress", "-comp", "zstd", "-mkfs-time", "99"]
    subprocess.run(argv, check=True, capture_output=True)
    return image


def test_superblock(squash):
    found = squashfs.superblock(squash)
    assert (found.compression, found.inodes, found.made_s) == ("zstd", 3, 99)
    assert 0 < found.used_bytes <= squash.stat().st_size


def test_torn_image(squash):
    os.truncate(squash, 100)
    with pytest.raises(ParseError, match="the image is torn: 100 bytes of"):
        squashfs.superblock(squash)


def test_superblock_of_another_version(squash):
    head = bytearray(squash.read_bytes()[:96])
    head[28] = 3
    with pytest.raises(ParseError, match="version 3; only 4 is known"):
        squashfs.parse(bytes(head), "here")


def test_one_file_of_an_image(squash):
    runner = SystemRunner()
    assert squashfs.text_of(runner, squash, "/etc/environment") == "A=b\n"
    assert squashfs.text_of(runner, squash, "etc/none") == ""


def test_the_digest_of_an_image_is_computed_once(tmp_path, squash):
    environ = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    expected = hashlib.sha256(squash.read_bytes()).hexdigest()
    assert lock(make_plan(squash), environ=environ)["image"]["sha256"] == expected
    (kept,) = (tmp_path / "cache/piolet/digests").iterdir()
    kept.write_text(json.dumps({"sha256": "kept"}))
    assert lock(make_plan(squash), environ=environ)["image"]["sha256"] == "kept"
    os.utime(squash, ns=(0, 0))
    assert lock(make_plan(squash), environ=environ)["image"]["sha256"] == expected
