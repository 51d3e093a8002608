"""Each system call of the set-up is made to fail, one after the other: the program then runs in its whole container, or
nowhere, and what went wrong is said. Faults are injected by strace, into every process until it becomes another
program: into the launcher and its builder, and into the Slurm plugin in the hands of a small slurmstepd (stepd.c).
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from piolet.core.native import DIRECTORY
from piolet.core.run import SystemRunner
from piolet.env import compile_environment, trusting, write_plan

ENTER = DIRECTORY / "piolet-enter"
PLUGIN = DIRECTORY / "spank_piolet.so"
STEPD = Path(__file__).parents[2] / "support/stepd.c"
JOINING = {"setns", "clone", "pipe2", "prctl"}
"""Calls whose failure always means that there is no container: the program must not run."""
BUILDING = JOINING | {
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
    "mkdir",
    "mkdirat",
    "mknodat",
    "fchdir",
}
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


def run(argv, *flags):
    argv = ["strace", "-f", "-b", "execve", *flags, *argv]
    return subprocess.run(
        argv, check=False, capture_output=True, text=True, cwd="/", timeout=30, env={"PATH": "/bin:/usr/bin"}
    )


def calls_of(argv, whole, trace):
    """Return how often each call is made by the process that makes it most often."""
    done = run(argv, "-o", trace)
    assert (done.returncode, sorted(done.stdout)) == (0, sorted(whole)), done  # two tasks write at once
    counts = Counter()
    for line in trace.read_text().splitlines():
        process, _, rest = line.partition(" ")
        call = re.match(r"\s*(\w+)\(", rest)
        if call:
            counts[call[1], process] += 1
    return {name: max(n for (call, _), n in counts.items() if call == name) for name in {call for call, _ in counts}}


def refusals(argv, calls, tasks=1):
    """Make every one of `calls` fail; return the calls at which something did not run."""
    refused = Counter()
    for call, count in sorted(calls.items()):
        for which in range(1, count + 1 if call != "close" else 1):  # Linux closes even when it says that it failed
            done = run(argv, "-o", "/dev/null", "-e", f"inject={call}:error=EPERM:when={which}")
            at = (call, which, done)
            assert sorted(done.stdout) in [sorted(WHOLE * ran) for ran in range(tasks + 1)], at
            if done.returncode == 0:
                assert len(done.stdout) == len(WHOLE) * tasks, at
                continue
            refused[call] += 1
            if done.returncode == 3 and not OTHERS.match(call):
                unsaid = call == "write" and not done.stderr  # what could not be written is the message
                assert unsaid or re.search(r"^  stage:  \w+$", done.stderr, re.MULTILINE), at
                assert unsaid or re.search(r"^  next:   \w", done.stderr, re.MULTILINE), at
    return refused


@pytest.fixture
def image(desk):
    """A directory as image, and what the EDF mounts into it."""
    if not (ENTER.exists() and Path("/bin/busybox").exists() and shutil.which("strace")):
        pytest.skip("needs `make native`, busybox-static and strace")
    desk.write("from data\n", "data/word")
    desk.write("", "one")
    desk.write("from the image\n", "rootfs/inside")
    (desk.directory / "rootfs/bin").mkdir()
    shutil.copy("/bin/busybox", desk.directory / "rootfs/bin/busybox")
    (desk.directory / "rootfs/bin/cat").symlink_to("busybox")
    return desk.directory / "rootfs"


@pytest.fixture
def stepd(tmp_path):
    """Return the command that runs two tasks under the plugin, given a plan and the site's images."""
    if not PLUGIN.exists():
        pytest.skip("needs libslurm-dev, and then `make native`")
    built = tmp_path / "stepd"
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-rdynamic", "-o", built, STEPD], check=True)
    return lambda plan, images: [built, PLUGIN, plan, images, "2", *PROGRAM]


def plan_of_squashfs(desk, image, target):
    """Make a squashfs file of the image, and a plan with it."""
    subprocess.run(["mksquashfs", image, target, "-quiet", "-no-progress"], check=True, capture_output=True)
    path = desk.write(f'image = "{target}"\n{EDF}')
    compiled = compile_environment(
        str(path), environ=desk.environ, cwd=desk.directory, settings=desk.settings, runner=SystemRunner()
    )
    return write_plan(compiled, desk.directory / "plans")


@pytest.mark.usefixtures("image")
def test_every_system_call_fails(desk, tmp_path):
    argv = [ENTER, write_plan(desk.compile_text(EDF), tmp_path / "plans"), "--", *PROGRAM]
    calls = calls_of(argv, WHOLE, tmp_path / "trace")
    assert set(calls) >= BUILDING, BUILDING - set(calls)
    refused = refusals(argv, calls)
    assert {call: refused[call] for call in BUILDING} == {call: calls[call] for call in BUILDING}
    assert refused.total() >= 60


@pytest.mark.usefixtures("image")
def test_every_system_call_of_the_plugin_fails(desk, stepd, tmp_path):
    argv = stepd(write_plan(desk.compile_text(EDF), tmp_path / "plans"), "/nonexistent")
    calls = calls_of(argv, WHOLE * 2, tmp_path / "trace")
    refused = refusals(argv, calls, tasks=2)
    assert {call for call in JOINING if refused[call]} == JOINING


def test_every_system_call_fails_with_a_squashfs_image(desk, image, tmp_path):
    argv = [ENTER, plan_of_squashfs(desk, image, tmp_path / "image.sqsh"), "--", *PROGRAM]
    calls = calls_of(argv, WHOLE, tmp_path / "trace")
    assert set(calls) >= BUILDING | {"memfd_create", "sched_setaffinity"}
    refused = refusals(argv, calls)
    assert all(refused[call] for call in BUILDING | {"memfd_create"})


def test_every_system_call_fails_with_an_image_that_the_site_trusts(desk, image, stepd, tmp_path):
    """The image is mounted by the kernel, or else served by squashfuse."""
    if os.geteuid():
        pytest.skip("the kernel mounts for root only")
    with tempfile.TemporaryDirectory(dir="/opt") as images:
        Path(images).chmod(0o755)
        target = Path(images, "image.sqsh")
        plan = plan_of_squashfs(desk, image, target)
        trusting.trust(target, hashlib.sha256(target.read_bytes()).hexdigest())
        argv = ["-E", f"SLURM_PIOLET_IMAGE={target}", *stepd(plan, images)]
        calls = calls_of(argv, WHOLE * 2, tmp_path / "trace")
        assert set(calls) >= {"ioctl", "fsopen", "mount_setattr", "move_mount"}
        refused = refusals(argv, calls, tasks=2)
        assert {call for call in JOINING if refused[call]} == JOINING
