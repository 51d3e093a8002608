"""`piolet env`, as it is typed."""

import json
import os
import shutil
from pathlib import Path

import pytest

from piolet.core.native import DIRECTORY
from piolet.env.edf import ARCHITECTURES

LISTING = """
image = "ubuntu:latest"

mounts = [
    "/scratch/project01/dataset:/scratch/project01/dataset:ro",
    "/scratch/${USER}"
]

workdir = "/scratch/${USER}/project01_code"
writable = true

[annotations.com.hooks.aws_ofi_nccl]
variant = "cuda12"

[annotations.com.hooks.ssh]
enabled = "true"
authorize_ssh_key = "<public key file path>"
"""


def test_check(desk, piolet):
    desk.write('image = "./rootfs"', "good.toml")
    desk.write('imag = "./rootfs"', "bad.toml")
    assert piolet("check", "./good.toml").returncode == 0
    done = piolet("check", "./good.toml", "./bad.toml", "./none.toml")
    assert done.returncode == 2
    assert done.stdout == "./good.toml: right\n"
    assert 'did you mean "image"?' in done.stderr
    assert "./none.toml: no such environment file" in done.stderr


def test_a_users_file_says_all_that_is_missing_and_is_right_then(desk, piolet):
    desk.write(LISTING.replace("cuda12", "cuda9"))
    done = piolet("check", "./test.toml")
    assert done.returncode == 2
    for part in ('com.hooks.aws_ofi_nccl.variant cannot be "cuda9"', "no such file", "2 problems"):
        assert part in done.stderr
    key = desk.write("ssh-ed25519 AAAA ada", "id.pub")
    desk.write(LISTING.replace("<public key file path>", str(key)))
    done = piolet("check", "./test.toml")
    assert (done.returncode, done.stdout) == (0, "./test.toml: right\n"), done.stderr


def test_render(desk, piolet):
    desk.write('image = "./rootfs"\n[env]\nA = ":x:"')
    table = piolet("render", "./test.toml").stdout
    assert f"{desk.directory}/test.toml:3" in next(line for line in table.splitlines() if line.startswith("env.A"))
    record = json.loads(piolet("render", "./test.toml", "--format", "json").stdout)
    assert {"key": "env.A", "value": ":x:", "origin": f"{desk.directory}/test.toml:3"} in record["values"]


def test_the_architecture_is_this_machines_unless_said(desk, piolet):
    (desk.directory / "other").mkdir()
    here = os.uname().machine
    there = next(name for name in ARCHITECTURES if name != here)
    desk.write(f'[image]\n{here} = "./rootfs"\n{there} = "./other"')
    for words, image in (((), "rootfs"), (("--arch", there), "other")):
        record = json.loads(piolet("render", "./test.toml", "--format", "json", *words).stdout)
        assert record["image"]["path"] == str(desk.directory / image)
    desk.environ["PIOLET_ENV_ARCH"] = there
    assert f"{desk.directory}/other" in Path(piolet("compile", "./test.toml").stdout.strip()).read_text()
    assert piolet("check", "--arch", "sparc", "./test.toml").returncode == 2


def test_compile(desk, piolet):
    desk.write('image = "./rootfs"')
    shared = Path(piolet("compile", "./test.toml").stdout.strip())
    own = Path(piolet("compile", "--output", "own.plan", "./test.toml").stdout.strip())
    assert shared.parent == desk.directory / "root/plans"
    assert own == desk.directory / "own.plan"
    assert own.read_text() == shared.read_text()


def test_run(desk, piolet):
    if not (DIRECTORY / "piolet-enter").exists() or not Path("/bin/busybox").exists():
        pytest.skip("needs `make native` and busybox-static")
    (desk.directory / "rootfs/bin").mkdir()
    shutil.copy("/bin/busybox", desk.directory / "rootfs/bin/busybox")
    desk.write('image = "./rootfs"\n[env]\nA = "b"')
    done = piolet("run", "./test.toml", "--", "/bin/busybox", "sh", "-c", 'echo "$A" "$1"; exit 9', "x", "--y z")
    assert done.returncode == 9, done.stderr
    assert done.stdout == "b --y z\n"
