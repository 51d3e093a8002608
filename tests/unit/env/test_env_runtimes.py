"""One suite for both runtimes: what an EDF says is what a program finds, in Piolet's container and in Podman's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from piolet.core.native import DIRECTORY

# Podman here is root's: a mount name space of its own without cgroup2, which crun refuses beside version 1, and limits
# that a machine without CAP_SYS_RESOURCE can set.
ALONE = 'umount /sys/fs/cgroup/unified 2>/dev/null; mount --make-rshared /; exec "$@"'
LIMITS = '[containers]\ndefault_ulimits = ["nofile=1024:20000", "nproc=4096:4096"]\n'


@pytest.fixture(params=["piolet", "podman"])
def runtime(request, desk):
    """Run a program in the EDF `test.toml` with `piolet env run`, as it is typed."""
    if not (DIRECTORY / "piolet-enter").exists() or not Path("/bin/busybox").exists():
        pytest.skip("needs `make native` and busybox-static")
    before = []
    if request.param == "podman":
        if not shutil.which("podman") or os.geteuid() != 0:
            pytest.skip("needs podman, and root for it")
        before = ["unshare", "--mount", "sh", "-c", ALONE, "sh"]
        desk.write(LIMITS, "containers.conf")
        desk.environ["CONTAINERS_CONF"] = str(desk.directory / "containers.conf")
    bin_directory = desk.directory / "rootfs/bin"
    bin_directory.mkdir()
    shutil.copy("/bin/busybox", bin_directory / "busybox")
    for applet in ("sh", "cat", "id", "pwd", "touch"):
        (bin_directory / applet).symlink_to("busybox")
    environ = os.environ | desk.environ | {"PIOLET_ROOT": str(desk.directory / "root")}

    def run(*program, edf="", image="./rootfs", words=(), **more):
        desk.write(f'image = "{image}"\n{edf}')
        argv = [*before, sys.executable, "-m", "piolet", "env", *words]
        argv += [] if words else ["run", "--runtime", request.param, "./test.toml", "--", *program]
        return subprocess.run(
            argv, check=False, capture_output=True, text=True, cwd=desk.directory, env=environ | more, timeout=60
        )

    run.desk, run.before, run.environ = desk, before, environ
    return run


def test_variables_in_their_order(runtime):
    runtime.desk.write("A=image\nB=image\nC=image\n", "rootfs/etc/environment")
    edf = '[env]\nA = "edf"\nGONE = ""\nPATH = "/bin"\nQUOTED = "a \\"b\\" $c"'
    host = {"B": "host", "HOST": "host", "GONE": "x", "LC_ALL": "C"}
    done = runtime("sh", "-c", 'echo "$A $B $HOST ${GONE-unset} ${LC_ALL-unset} $QUOTED"', edf=edf, **host)
    assert done.stdout == 'edf image host unset unset a "b" $c\n', done.stderr


def test_mounts_and_the_directory(runtime):
    for name in ("data", "own", "work"):
        runtime.desk.write("seen\n", f"{name}/file")
    mounts = '"./data:/data:ro", "./own", "./work:/w", "tmpfs:/scratch:size=1m"'
    edf = f'workdir = "/w"\nmounts = [{mounts}]\n[env]\nPATH = "/bin"'
    own = runtime.desk.directory / "own/file"
    script = f"pwd; cat /data/file {own}; touch /data/no; touch new /scratch/new /tmp/new && echo ok"
    done = runtime("sh", "-c", script, edf=edf)
    assert done.stdout == "/w\nseen\nseen\nok\n", done.stderr
    assert "Read-only file system" in done.stderr
    assert (runtime.desk.directory / "work/new").exists()
    assert not Path("/tmp/new").exists()  # noqa: S108 - the container's own /tmp


def test_a_root_that_may_be_written_and_one_that_may_not(runtime):
    for writable, said in (("true", "ok\n"), ("false", "")):
        done = runtime("sh", "-c", "touch /new && echo ok", edf=f'writable = {writable}\n[env]\nPATH = "/bin"')
        assert done.stdout == said, done.stderr
    assert not (runtime.desk.directory / "rootfs/new").exists()


def test_the_end_and_the_words_of_the_program(runtime):
    edf = '[env]\nPATH = "/bin"'
    assert runtime("sh", "-c", "exit 7", edf=edf).returncode == 7
    assert runtime("sh", "-c", 'echo "$0 $1"', "*", "$HOME", edf=edf).stdout == "* $HOME\n"
    assert runtime("no-such-program", edf=edf).returncode == 127


def test_what_comes_before_and_after(runtime):
    runtime.desk.write('echo entered\nexec "$@"\n', "rootfs/etc/rc")
    runtime.desk.write('switch = "com.pyxis.end"\nsummary = "s"\n[[stop]]\ncommand = "echo stop"\n', "hooks/end.toml")
    edf = (
        'entrypoint = true\n[[start]]\ncommand = "echo start"\n'
        '[require]\npaths = ["/bin/sh"]\ndevices = ["/dev/null"]\n'
        '[env]\nPATH = "/bin"\n[annotations]\ncom.pyxis.pytorch_remap_vars = true\ncom.pyxis.end = true'
    )
    hooks = {"PIOLET_ENV_HOOKS_PATH": str(runtime.desk.directory / "hooks"), "SLURM_PROCID": "3"}
    done = runtime("sh", "-c", "echo rank $RANK", edf=edf, **hooks)
    assert done.stdout == "entered\nrank 3\n", done.stderr
    assert done.stderr.splitlines() == ["start", "stop"]


def test_what_does_not_hold_starts_nothing(runtime):
    for text, stage in (('[require]\npaths = ["/no"]', "require"), ('[[start]]\ncommand = "exit 3"', "start")):
        done = runtime("sh", "-c", "echo ran", edf=f'{text}\n[env]\nPATH = "/bin"')
        assert (done.returncode, done.stdout) == (3, ""), done
        assert f"  stage:  {stage}\n" in done.stderr


def test_a_squashfs_image(runtime):
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/fuse")
    directory = runtime.desk.directory
    subprocess.run(
        ["mksquashfs", directory / "rootfs", directory / "it.sqsh", "-quiet", "-no-progress"],
        check=True,
        capture_output=True,
    )
    edf = 'mounts = ["./it.sqsh:/again:sqsh"]\n[env]\nPATH = "/bin"'
    done = runtime("sh", "-c", "touch /new && echo ok; touch /again/new; cat /proc/mounts", edf=edf, image="./it.sqsh")
    assert done.stdout.startswith("ok\n"), done.stderr
    assert "Read-only file system" in done.stderr
    assert str(directory) not in Path("/proc/mounts").read_text()


@pytest.mark.parametrize("runtime", ["podman"], indirect=True)
def test_the_command_line_of_podman_is_what_it_runs(runtime):
    runtime.desk.write('image = "./rootfs"\n[env]\nA = "a b"\nPATH = "/bin"')
    line = subprocess.run(
        [sys.executable, "-m", "piolet", "env", "render", "--as", "podman", "./test.toml"],
        check=True,
        capture_output=True,
        text=True,
        cwd=runtime.desk.directory,
        env=runtime.environ,
    ).stdout.strip()
    assert line.splitlines()[-1].startswith(("podman run", "env -u"))
    script = f"{line} sh -c 'echo \"$A\"'"
    done = subprocess.run(
        [*runtime.before, "sh", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        env=runtime.environ,
        timeout=60,
    )
    assert done.stdout == "a b\n", done.stderr
    refused = runtime("sh", edf="[annotations.com.hooks.dcgm]\nenabled = true")
    assert refused.returncode == 2
    assert "Podman cannot give `library dcgm libdcgm.so.4 optional`" in refused.stderr


def test_a_cdi_device_is_left_to_podman(desk, piolet):
    desk.write('image = "./rootfs"\ndevices = ["nvidia.com/gpu=all"]')
    assert "--device nvidia.com/gpu=all" in piolet("render", "--as", "podman", "./test.toml").stdout
