"""What Python writes into a plan is what C reads from it: variables arrive in the program byte by byte."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piolet.core.native import DIRECTORY
from piolet.env import ContainerPlan, write_plan
from piolet.env.model import Image, ImageKind, Mount, MountKind, Variable

ENTER = DIRECTORY / "piolet-enter"
values = st.binary(max_size=200).filter(lambda content: 0 not in content).map(os.fsdecode)
variables = st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True), values, max_size=8)


@pytest.fixture(scope="module")
def rootfs():
    if not ENTER.exists() or not Path("/bin/busybox").exists():
        pytest.skip("needs `make native` and busybox-static")
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "rootfs"
        (tree / "bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", tree / "bin/busybox")
        yield tree


@settings(max_examples=60, deadline=None)
@given(wanted=variables)
def test_variables_arrive_as_they_were_written(rootfs, wanted):
    plan = ContainerPlan(
        name="test",
        image=Image(ImageKind.DIRECTORY, rootfs, ""),
        mounts=(Mount(MountKind.BIND, "/proc", "/proc", (), ""),),
        variables=tuple(Variable(name, value, "") for name, value in wanted.items()),
    )
    path = write_plan(plan, rootfs.parent / "plans")
    argv = [ENTER, path, "--", "/bin/busybox", "cat", "/proc/self/environ"]
    done = subprocess.run(argv, check=True, capture_output=True, env={}, timeout=20)
    seen = dict(entry.split(b"=", 1) for entry in done.stdout.split(b"\0") if entry)
    assert seen == {name.encode(): os.fsencode(value) for name, value in wanted.items()}
