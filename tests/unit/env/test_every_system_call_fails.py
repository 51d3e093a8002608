"""Each system call of the set-up is made to fail, one after the other: the program then runs in its whole container, or
nowhere, and what went wrong is said. Faults are injected by strace, into every process of the set-up.
"""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from piolet.core.native import DIRECTORY
from piolet.env import write_plan

ENTER = DIRECTORY / "piolet-enter"
ESSENTIAL = {
    "unshare",
    "mount",
    "pivot_root",
    "umount2",
    "move_mount",
    "open_tree",
    "mount_setattr",
    "fsopen",
    "fsconfig",
    "fsmount",
    "setns",
    "mkdir",
    "mkdirat",
    "mknodat",
    "fchdir",
    "clone",
    "pipe2",
    "prctl",
}
"""Calls whose failure always means that there is no container: the program must not run."""
OTHERS = re.compile(r"arch_prctl|brk|execve|exit_group|getrandom|mmap|mprotect|rseq|set_robust_list|set_tid_address")
"""Calls of the C library and of the kernel's loader: there, all that counts is that nothing runs outside."""
EDF = """
mounts = ["./data:/data:ro", "./one:/opt/new/one", "tmpfs:/scratch:size=1m"]
workdir = "/data"
[env]
PATH = "/bin"
"""
PROGRAM = ["/bin/cat", "word", "/inside"]
WHOLE = "from data\nfrom the image\n"


@pytest.fixture
def plan(desk):
    if not (ENTER.exists() and Path("/bin/busybox").exists() and shutil.which("strace")):
        pytest.skip("needs `make native`, busybox-static and strace")
    desk.write("from data\n", "data/word")
    desk.write("", "one")
    desk.write("from the image\n", "rootfs/inside")
    (desk.directory / "rootfs/bin").mkdir()
    shutil.copy("/bin/busybox", desk.directory / "rootfs/bin/busybox")
    (desk.directory / "rootfs/bin/cat").symlink_to("busybox")
    return write_plan(desk.compile_text(EDF), desk.directory / "plans")


def traced(plan, *flags):
    argv = ["strace", "-f", *flags, ENTER, plan, "--", *PROGRAM]
    return subprocess.run(
        argv, check=False, capture_output=True, text=True, cwd="/", timeout=30, env={"PATH": "/bin:/usr/bin"}
    )


def calls_of(plan, trace):
    """Return how often each call is made by the process that makes it most often, until the program begins."""
    assert traced(plan, "-o", trace).stdout == WHOLE
    counts = Counter()
    for line in trace.read_text().splitlines():
        process, _, rest = line.partition(" ")
        call = re.match(r"\s*(\w+)\(", rest)
        if call:
            counts[call[1], process] += 1
        if 'execve("/bin/cat"' in rest:
            break
    most = {}
    for (call, _), count in counts.items():
        most[call] = max(most.get(call, 0), count)
    return most


def test_every_system_call_fails(plan, tmp_path):
    calls = calls_of(plan, tmp_path / "trace")
    assert set(calls) >= ESSENTIAL, ESSENTIAL - set(calls)
    refused = 0
    for call, count in sorted(calls.items()):
        for which in range(1, count + 1 if call != "close" else 1):  # Linux closes even when it says that it failed
            done = traced(plan, "-o", "/dev/null", "-e", f"inject={call}:error=EPERM:when={which}")
            at = (call, which, done)
            if done.stdout == WHOLE and done.returncode == 0:
                assert call not in ESSENTIAL, at
                continue
            refused += 1
            assert done.stdout == "" or OTHERS.match(call), at
            if not OTHERS.match(call):
                assert done.returncode == 3, at
                unsaid = call == "write" and not done.stderr  # what could not be written is the message
                assert unsaid or re.search(r"^  stage:  \w+$", done.stderr, re.MULTILINE), at
                assert unsaid or re.search(r"^  next:   \w", done.stderr, re.MULTILINE), at
    assert refused >= 60
