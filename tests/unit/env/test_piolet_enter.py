"""The launcher, on an image that is a directory: no Slurm, no FUSE, no privilege."""

import os
import shutil
import signal
import subprocess
import zlib
from pathlib import Path

import pytest

from piolet.core.native import DIRECTORY
from piolet.env import write_plan

ENTER = DIRECTORY / "piolet-enter"


@pytest.fixture
def rootfs(desk):
    if not ENTER.exists() or not Path("/bin/busybox").exists():
        pytest.skip("needs `make native` and busybox-static")
    (desk.directory / "rootfs/bin").mkdir()
    shutil.copy("/bin/busybox", desk.directory / "rootfs/bin/busybox")
    for applet in ("sh", "cat", "kill", "pwd"):
        (desk.directory / f"rootfs/bin/{applet}").symlink_to("busybox")
    return desk


def enter(desk, *program, text="", **options):
    path = write_plan(desk.compile_text(f'{text}\n[env]\nPATH = "/bin"\nA = "a b"'), desk.directory / "plans")
    argv = [ENTER, path, "--", *program]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=20, **options)


def test_the_program_is_the_process_itself(rootfs):
    plan = write_plan(rootfs.compile_text('[env]\nPATH = "/bin"'), rootfs.directory / "plans")
    with subprocess.Popen([ENTER, plan, "--", "sh", "-c", "echo $$"], stdout=subprocess.PIPE, text=True) as process:
        assert int(process.stdout.read()) == process.pid
    assert process.returncode == 0


def test_exit_status_signal_stdin_and_variables(rootfs):
    assert enter(rootfs, "sh", "-c", "exit 7").returncode == 7
    assert enter(rootfs, "sh", "-c", "kill -9 $$").returncode == -signal.SIGKILL
    assert enter(rootfs, "cat", input="passed on").stdout == "passed on"
    assert enter(rootfs, "sh", "-c", 'echo "$A"').stdout == "a b\n"


def test_starts_where_the_caller_is_if_the_container_has_that(rootfs):
    assert enter(rootfs, "pwd", cwd="/etc").stdout == "/etc\n"
    assert enter(rootfs, "pwd", cwd=rootfs.directory).stdout == "/\n"
    mounted = enter(rootfs, "pwd", cwd=rootfs.directory, text=f'mounts = ["{rootfs.directory}"]')
    assert mounted.stdout == f"{rootfs.directory}\n"


def test_a_program_that_is_not_there(rootfs):
    done = enter(rootfs, "no-such-program")
    assert done.returncode == 127
    assert "no-such-program: No such file or directory in the container" in done.stderr


def test_a_plan_that_is_not_there(tmp_path):
    if not ENTER.exists():
        pytest.skip("needs `make native`")
    done = subprocess.run([ENTER, tmp_path / "no.plan", "--", "true"], check=False, capture_output=True, text=True)
    assert done.returncode == 3
    assert "the program was not run" in done.stderr
    assert "  stage:  plan\n" in done.stderr


def test_usage():
    if not ENTER.exists():
        pytest.skip("needs `make native`")
    done = subprocess.run([ENTER, "x"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage:")


def test_no_squashfuse(rootfs):
    tree, image = rootfs.directory / "rootfs", rootfs.directory / "image.sqsh"
    subprocess.run(["mksquashfs", tree, image, "-quiet", "-no-progress"], check=True, capture_output=True)
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/fuse")
    plan = rootfs.compile_text("")
    line = f"image squashfs {image} {image.stat().st_size} {image.stat().st_mtime_ns}"
    text = plan.text().replace(f"image directory {tree}", line)
    body = text[: text.rindex("end ")]

    path = rootfs.directory / "own.plan"
    path.write_text(f"{body}end {zlib.crc32(body.encode()):08x}\n")
    done = subprocess.run(
        [ENTER, path, "--", "cat"], check=False, capture_output=True, text=True, env={"PATH": "/nonexistent"}
    )
    assert done.returncode == 3
    assert "squashfuse is not installed on this node" in done.stderr


@pytest.fixture
def data(rootfs):
    """A squashfs file with a file in it, in the user's directory."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/fuse")
    tree = rootfs.directory / "data"
    tree.mkdir()
    (tree / "word").write_text("from squashfs\n")
    image = rootfs.directory / "data.sqsh"
    subprocess.run(["mksquashfs", tree, image, "-quiet", "-no-progress"], check=True, capture_output=True)
    return image


@pytest.mark.usefixtures("data")
def test_a_squashfs_file_is_mounted(rootfs):
    text = 'mounts = ["./data.sqsh:/data:sqsh", "./data.sqsh:/other/place:ro+sqsh"]'
    done = enter(rootfs, "sh", "-c", "cat /data/word /other/place/word; echo x >/data/new", text=text)
    assert done.stdout == "from squashfs\n" * 2, done.stderr
    assert "/data/new: Read-only file system" in done.stderr


def test_squashfs_mounts_that_fail(rootfs, data):
    text = 'mounts = ["./data.sqsh:/data:sqsh", "./data.sqsh:/bin/busybox:sqsh"]'
    _assert_refused(enter(rootfs, "sh", "-c", "echo ran", text=text), "mount", "target /bin/busybox for ")
    plan = rootfs.compile_text('mounts = ["./data.sqsh:/data:sqsh", "./data.sqsh:/more:sqsh"]\n[env]\nPATH = "/bin"')
    path = write_plan(plan, rootfs.directory / "plans")
    content = data.read_bytes()
    status = data.stat()
    data.write_bytes(content[:100].ljust(len(content), b"\0"))
    os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))
    _assert_refused(_enter(path), "image", "squashfuse could not serve ")
    data.write_bytes(content + b"x")
    _assert_refused(_enter(path), "image", "has changed since the environment was compiled")
    data.unlink()
    _assert_refused(_enter(path), "image", "data.sqsh: No such file or directory")


def _enter(path):
    argv = [ENTER, path, "--", "sh", "-c", "echo ran"]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=20)


def _assert_refused(done, stage, reason):
    assert (done.returncode, done.stdout) == (3, "")
    assert f"  stage:  {stage}\n" in done.stderr
    assert reason in done.stderr
