"""What the command line says when it cannot do or say what was asked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PIOLET = Path(sys.executable).parent / "piolet"


@pytest.mark.parametrize("argv", [["--help"], ["config", "keys"], ["config", "show", "--format", "json"]])
def test_a_full_disk_is_one_clear_error(argv: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([PIOLET, *argv], check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.stderr == "piolet: the output could not be written: No space left on device\n"
    assert done.returncode == 3


def test_no_message_can_be_written_either() -> None:
    with Path("/dev/full").open("w") as full:
        assert subprocess.run([PIOLET, "config", "keys"], check=False, stdout=full, stderr=full).returncode == 3
        assert subprocess.run([PIOLET, "score", "/nowhere"], check=False, stdout=full, stderr=full).returncode == 2


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    line = f"{PIOLET} config keys | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[1] == "0"
    assert done.stderr == ""


def test_a_command_that_is_mistyped_is_named() -> None:
    done = subprocess.run([PIOLET, "rum"], check=False, capture_output=True, text=True)
    assert done.stderr.endswith("Error: No such command 'rum'. Did you mean 'run'?\n")
    assert done.returncode == 2


@pytest.mark.parametrize("argv", [["env", "compile"], ["score"]])
def test_a_path_that_may_not_be_read_is_one_clear_error(argv: list[str], tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    nobody = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    command = [PIOLET, *argv, closed / "inside"]
    environment = os.environ | {"HOME": "/"}
    done = subprocess.run(command, check=False, capture_output=True, cwd="/", env=environment, text=True, **nobody)
    assert done.stderr.startswith(f"piolet: permission denied\n  where: {closed}/inside")
    assert done.returncode == 3
