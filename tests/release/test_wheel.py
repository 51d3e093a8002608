"""The wheel: compiled for both architectures, the same bytes every time, installed by an ordinary pip."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from piolet.core.native import native

CHECKOUT = Path(__file__).resolve().parents[2]
MACHINES = {"x86_64": 62, "aarch64": 183}
"""e_machine of ELF."""


def built(commit: Path, *architectures: str) -> list[Path]:
    done = subprocess.run(
        [commit / "scripts" / "wheel", *architectures], check=False, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [Path(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def commit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree as it stands, committed in a clone of its own."""
    clone = tmp_path_factory.mktemp("wheel") / "piolet"
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "safe.directory=*"]
    tracked = subprocess.run([*git, "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        if (CHECKOUT / name).is_file():
            shutil.copy2(CHECKOUT / name, clone / name)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "as it stands"]):
        subprocess.run([*git, *words], cwd=clone, check=True)
    (clone / ".venv").symlink_to(sys.prefix)
    return clone


@pytest.fixture(scope="module")
def wheels(commit: Path) -> dict[str, Path]:
    """The wheel of each architecture."""
    return {path.stem.split("2_34_")[1]: path for path in built(commit, *MACHINES)}


def test_each_architecture_has_programs_of_its_own(wheels: dict[str, Path]) -> None:
    assert sorted(wheels) == sorted(MACHINES)
    for architecture, path in wheels.items():
        assert path.name.endswith(f"-py3-none-manylinux_2_34_{architecture}.whl")
        with zipfile.ZipFile(path) as wheel:
            parts = [name for name in wheel.namelist() if name.startswith("piolet/_native/")]
            assert {Path(name).name for name in parts} == {"libnvidia-ml.so.1", "piolet-enter", "spank_piolet.so"}
            for name in parts:
                assert int.from_bytes(wheel.read(name)[18:20], "little") == MACHINES[architecture]


@pytest.mark.parametrize("part", ["spank_piolet.so", "libnvidia-ml.so.1"])
def test_no_part_asks_for_a_newer_glibc_than_the_tag_says(part: str) -> None:
    symbols = subprocess.run(["objdump", "-T", native(part)], check=True, capture_output=True, text=True).stdout
    asked = {tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([\d.]+)", symbols)}
    assert asked
    assert max(asked) <= (2, 34)


def test_the_same_commit_gives_the_same_bytes(commit: Path, wheels: dict[str, Path]) -> None:
    first = hashlib.sha256(wheels["x86_64"].read_bytes()).digest()
    wheels["x86_64"].unlink()
    built(commit, "x86_64")
    assert hashlib.sha256(wheels["x86_64"].read_bytes()).digest() == first


@dataclass(frozen=True)
class Installed:
    """Where an ordinary user has installed the wheel; no other program, so no Slurm, is in PATH."""

    directory: Path

    def __call__(self, *argv: str | Path) -> str:
        """Run a command as that user and return its output."""
        environment = {"PATH": f"{self.directory}/bin", "PYTHONPATH": sysconfig.get_path("purelib"), "HOME": "/"}
        identity = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(
            argv, check=False, capture_output=True, cwd=self.directory, env=environment, text=True, **identity
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def given(self, path: Path) -> Path:
        """Copy a file or a directory to where the user can read it."""
        there = self.directory / path.name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, there)
        return there


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path]) -> Iterator[Installed]:
    directory = Path(tempfile.mkdtemp(prefix="piolet-test-", dir="/var/tmp"))
    directory.chmod(0o777)
    there = Installed(directory)
    there(sys.executable, "-m", "venv", directory)
    wheel = there.given(wheels[os.uname().machine])
    there(directory / "bin/pip", "install", "-q", "--no-cache-dir", "--no-deps", "--no-index", wheel)
    (directory / "bin/env").symlink_to("/usr/bin/env")  # which the completion asks
    yield there
    shutil.rmtree(directory)


def test_pip_installs_the_command_its_manual_and_its_completion(installed: Installed) -> None:
    assert (installed.directory / "share/man/man1/piolet-run.1").read_text().startswith('.TH "PIOLET RUN"')
    words = "COMP_WORDS=(piolet ru) COMP_CWORD=1; _piolet_completion piolet; echo ${COMPREPLY[@]}"
    script = f". share/bash-completion/completions/piolet; {words}"
    assert installed("/bin/bash", "-c", script).split() == ["run"]


def test_an_ordinary_user_without_slurm_scores_a_logbook_and_checks_an_environment(installed: Installed) -> None:
    piolet = installed.directory / "bin/piolet"
    assert "Usage: piolet" in installed(piolet, "--help")
    logbook = installed.given(CHECKOUT / "tests/replay/versions/0.1.0/logbooks/alps/4711")
    assert 0 < json.loads(installed(piolet, "score", logbook, "--format", "json"))["score"] < 1
    edf = installed.directory / "mine.toml"
    edf.write_text('image = "ubuntu:24.04"\n')
    assert installed(piolet, "env", "check", edf) == f"{edf}: right\n"
