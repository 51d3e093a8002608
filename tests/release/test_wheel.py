"""The wheel: compiled for both architectures, the same bytes every time, installed by an ordinary pip."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
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


def test_pip_installs_the_command_its_manual_and_its_completion(wheels: dict[str, Path], tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True)
    wheel = wheels[os.uname().machine]
    pip = [tmp_path / "bin" / "pip", "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True)
    assert (tmp_path / "share/man/man1/piolet-run.1").read_text().startswith('.TH "PIOLET RUN"')
    words = "COMP_WORDS=(piolet ru) COMP_CWORD=1; _piolet_completion piolet; echo ${COMPREPLY[@]}"
    asked = ["bash", "-c", f". share/bash-completion/completions/piolet; {words}"]
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": sysconfig.get_path("purelib")}
    done = subprocess.run(asked, check=True, capture_output=True, cwd=tmp_path, env=environment, text=True)
    assert done.stdout.split() == ["run"]
