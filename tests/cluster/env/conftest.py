"""Containers on the lab: an image, EDFs and plans in a directory that an ordinary user owns and nodes see."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PIOLET = (sys.executable, "-m", "piolet")


def signed(body: str) -> str:
    """Return a plan with the checksum that fits its lines."""
    return f"{body}end {zlib.crc32(body.encode()):08x}\n"


def make_image(directory: Path, name: str, *extra: str, prepare: Callable[[Path], None] | None = None) -> Path:
    """Make a squashfs image of busybox; `prepare` may add to the tree first."""
    tree = directory / f"{name}.tree"
    for part in ("bin", "etc", "opt"):
        (tree / part).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    for applet in (
        "sh",
        "cat",
        "test",
        "touch",
        "id",
        "ls",
        "mount",
        "sleep",
        "stat",
        "head",
        "umount",
        "grep",
        "env",
        "kill",
    ):
        (tree / "bin" / applet).symlink_to("busybox")
    (tree / "bin/only-in-the-image").symlink_to("/bin/busybox-wrapper")
    wrapper = tree / "bin/busybox-wrapper"
    wrapper.write_text('#!/bin/sh\necho "ran $*"\n')
    wrapper.chmod(0o755)
    (tree / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tree / "etc/environment").write_text("FROM_IMAGE=image\nPATH=/bin\n")
    if prepare:
        prepare(tree)
    image = directory / f"{name}.sqsh"
    subprocess.run(
        ["mksquashfs", tree, image, "-noappend", "-quiet", "-no-progress", *extra], check=True, capture_output=True
    )
    shutil.rmtree(tree)
    return image


@dataclass(frozen=True, slots=True)
class Site:
    """A directory with an image, and ways to run programs in containers as one user."""

    directory: Path
    image: Path
    user: str | None
    on_lab: Any

    def edf(self, text: str, name: str = "test") -> Path:
        path = self.directory / f"{name}.toml"
        path.write_text(text)
        return path

    def plan(self, text: str = "", change: Callable[[str], str] = str) -> Path:
        """Compile an EDF, change the plan's lines, and write it with a checksum that fits."""
        edf = self.edf(f'image = "{self.image}"\nmounts = ["{self.directory}"]\n{text}')
        compiled = Path(self.run(*PIOLET, "env", "compile", edf).stdout.strip())
        body = change(re.sub(r"end [0-9a-f]{8}\n\Z", "", compiled.read_text()))
        path = self.directory / "changed.plan"
        path.write_text(signed(body))
        return path

    def run(self, *argv: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        variables = {"PIOLET_ROOT": str(self.directory / "root")} | options.pop("env", {})
        return self.on_lab(*map(str, argv), user=self.user, cwd=self.directory, env=variables, check=check, **options)

    def srun(self, environment: object, *program: object, nodes: int = 1, check: bool = True, **options: Any) -> Any:
        argv = ("srun", f"-N{nodes}", f"--environment={environment}", *options.pop("flags", ()), *program)
        return self.run(*argv, check=check, **options)

    @property
    def marker(self) -> Path:
        return self.directory / "marker"

    def assert_refused(self, plan: object, stage: str, reason: str, **options: Any) -> None:
        """The step fails, says why on its standard error, and the program ran nowhere."""
        done = self.srun(plan, "touch", self.marker, check=False, **options)
        assert done.returncode == 3, done
        assert f"  stage:  {stage}\n" in done.stderr, done.stderr
        assert re.search(rf"^  reason: .*{reason}", done.stderr, re.MULTILINE), done.stderr
        assert re.search(r"^  next:   \w", done.stderr, re.MULTILINE), done.stderr
        assert "the program was not run" in done.stderr
        assert not self.marker.exists()


@pytest.fixture(params=["user", "root"])
def site(request: pytest.FixtureRequest, on_lab: Any, user: str) -> Iterator[Site]:
    yield from _site(on_lab, user if request.param == "user" else None)


@pytest.fixture
def user_site(on_lab: Any, user: str) -> Iterator[Site]:
    """Only as the ordinary user."""
    yield from _site(on_lab, user)


def _site(on_lab: Any, user: str | None) -> Iterator[Site]:
    directory = Path(tempfile.mkdtemp(prefix="piolet-env-", dir="/var/tmp"))
    directory.chmod(0o755)
    image = make_image(directory, "image")
    entry = pwd.getpwnam(user or "root")
    os.chown(directory, entry.pw_uid, entry.pw_gid)
    yield Site(directory, image, user, on_lab)
    shutil.rmtree(directory)


@pytest.fixture
def image_maker() -> Callable[..., Path]:
    return make_image


@pytest.fixture(autouse=True)
def _nodes_stay_well(on_lab: Any) -> Iterator[None]:
    """No test drains a node, and none leaves a squashfuse behind."""
    yield
    states = on_lab("sinfo", "-h", "-N", "-o", "%N %T").stdout.split()
    assert not {state for state in states[1::2] if state.startswith(("drain", "down", "fail"))}, states
