"""What a container has of its node, and what happens around its programs: on an image with the host's C library."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from piolet.core.native import DIRECTORY
from piolet.env import write_plan
from piolet.env.lines import Line
from piolet.env.plan import part_text

ENTER = DIRECTORY / "piolet-enter"
LINKER = next(
    (path for path in map(Path, ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")) if path.exists()), None
)


@pytest.fixture(scope="session")
def glibc_tree(tmp_path_factory):
    """An image with busybox, the host's C library and ldconfig."""
    if not (ENTER.exists() and Path("/bin/busybox").exists() and LINKER and Path("/sbin/ldconfig").exists()):
        pytest.skip("needs `make native`, busybox-static and the GNU C library")
    tree = tmp_path_factory.mktemp("glibc") / "rootfs"
    for part in ("bin", "sbin", "etc", "lib", "lib64"):
        (tree / part).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    for applet in ("sh", "cat", "ls", "env", "sleep", "readlink", "head", "cut"):
        (tree / f"bin/{applet}").symlink_to("busybox")
    shutil.copy("/sbin/ldconfig", tree / "sbin/ldconfig")
    shutil.copy(LINKER, tree / str(LINKER).lstrip("/"))
    libc = subprocess.run([LINKER, "--list", "/bin/sh"], check=True, capture_output=True, text=True).stdout
    directory = Path(libc.split("libc.so.6 => ")[1].split()[0]).parent
    (tree / str(directory).lstrip("/")).mkdir(parents=True, exist_ok=True)
    for name in ("libc.so.6", "libm.so.6"):
        shutil.copy(directory / name, tree / str(directory).lstrip("/") / name)
    (tree / "etc/ld.so.conf").write_text(f"{directory}\n")
    return tree


@pytest.fixture
def box(desk, glibc_tree):
    """Run a program in the container of an EDF, with a hook `test` of the given text."""
    shutil.rmtree(desk.directory / "rootfs")
    shutil.copytree(glibc_tree, desk.directory / "rootfs", symlinks=True)

    def run(*program, edf="", hook="", **options):
        if hook:
            desk.write(f'annotation = "com.hooks.test"\nsummary = "of a test"\n{hook}', "hooks/test.toml")
            desk.use(hooks_path=(desk.directory / "hooks",), hooks=("test",))
        plan = write_plan(desk.compile_text(f'{edf}\n[env]\nPATH = "/bin:/sbin"'), desk.directory / "plans")
        return subprocess.run(
            [ENTER, plan, "--", *program], check=False, capture_output=True, text=True, timeout=30, cwd="/", **options
        )

    run.desk = desk
    return run


def refused(done, stage, *reasons):
    assert (done.returncode, done.stdout) == (3, ""), done
    assert f"  stage:  {stage}\n" in done.stderr
    for reason in reasons:
        assert reason in done.stderr


def libraries(directory, *, newest):
    """Make libuse.so, which needs libdep.so, in `directory`; return a libdep.so that lacks what `newest` has."""
    (directory / "versions").write_text("V1 { global: one; };\nV2 { global: two; } V1;\n" if newest else "V1 { *; };\n")
    source = "int one(void) { return 1; }\n" + ("int two(void) { return 2; }\n" if newest else "")
    (directory / "dep.c").write_text(source)
    (directory / "use.c").write_text("int two(void);\nint use(void) { return two(); }\n")
    make = ["gcc", "-shared", "-fPIC"]
    script = f"-Wl,--version-script={directory}/versions"
    subprocess.run([*make, script, "-Wl,-soname,libdep.so", "-o", "libdep.so", "dep.c"], check=True, cwd=directory)
    if newest:
        subprocess.run([*make, "-o", "libuse.so", "use.c", "-L.", "-ldep"], check=True, cwd=directory)
    return directory / "libdep.so"


def test_a_library_of_the_node_comes_with_what_the_image_lacks(box):
    host = subprocess.run([LINKER, "--list", "/usr/bin/squashfuse"], check=True, capture_output=True, text=True).stdout
    done = box(
        "sh", "-c", "ls /.piolet/lib; squashfuse -h", hook='programs = ["/usr/bin/squashfuse"]', edf="writable = false"
    )
    assert "squashfuse" in done.stderr
    assert "error while loading" not in done.stderr
    names = {line.split(" => ")[0].strip() for line in host.splitlines() if " => " in line}
    assert set(done.stdout.split()) == names - {"libc.so.6", "libm.so.6"}
    done = box("sh", "-c", "echo $LD_LIBRARY_PATH; ldconfig -p", hook='libraries = ["libfuse3.so.3?", "libnone.so.9?"]')
    assert done.stdout.startswith("/.piolet/lib\n"), done.stderr
    assert "=> /.piolet/lib/libfuse3.so.3" in done.stdout or "libfuse3" not in host


def test_a_library_that_the_node_does_not_have(box):
    refused(box("sh", hook='libraries = ["libnone.so.9"]'), "libraries", "test needs libnone.so.9, which this node")


def test_an_image_that_is_too_old_for_a_library(box):
    new, old = box.desk.directory / "new", box.desk.directory / "old"
    for directory in (new, old):
        directory.mkdir()
        libraries(directory, newest=directory is new)
    shutil.copy(old / "libdep.so", box.desk.directory / "rootfs/lib/libdep.so")
    hook = f'libraries = ["{new}/libuse.so"]\n[env]\nLD_LIBRARY_PATH = "/lib"'
    refused(box("sh", hook=hook), "verify", "version `V2' not found (required by /.piolet/lib/libuse.so)")
    (box.desk.directory / "rootfs/lib/libdep.so").unlink()
    refused(box("sh", hook=hook), "verify", "libdep.so => not found")


def test_an_image_without_a_linker(box):
    (box.desk.directory / "rootfs" / str(LINKER).lstrip("/")).unlink()
    refused(box("sh", hook='libraries = ["libc.so.6"]'), "libraries", f"the image has no {LINKER}")


@pytest.mark.parametrize(
    ("require", "reason"),
    [
        ('paths = ["/no/such*"]', "environment requires /no/such*"),
        ('devices = ["/dev/no-such-device"]', "environment requires /dev/no-such-device"),
        ('libraries = ["libnone.so.9"]', "requires the library libnone.so.9"),
        ("nccl_plugin = true", "requires the library libnccl-net.so"),
        ('variables = ["NO_SUCH_VARIABLE"]', "requires the variable NO_SUCH_VARIABLE"),
        ('driver = "570"', "environment requires"),
    ],
)
def test_a_requirement_that_does_not_hold(box, require, reason):
    if "driver" in require and Path("/sys/module/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver")
    refused(box("sh", "-c", "echo ran", edf=f"[require]\n{require}"), "require", reason)


def test_requirements_that_hold(box):
    require = 'paths = ["/bin/*sh"]\ndevices = ["/dev/null"]\nlibraries = ["libm.so.6"]\nvariables = ["PATH"]'
    assert box("sh", "-c", "echo ran", edf=f"[require]\n{require}").stdout == "ran\n"


def test_commands_before_and_after_the_program(box):
    hook = (
        '[[start]]\ncommand = "echo start $A >&2"\n[[start]]\nper = "task"\ncommand = ["sh", "-c", "echo task $A"]\n'
        '[[stop]]\ncommand = "echo stop $A"\n[env]\nA = "b"'
    )
    done = box("sh", "-c", "echo program; exit 7", hook=hook)
    assert (done.returncode, done.stdout) == (7, "program\n")
    assert done.stderr == "start b\ntask b\nstop b\n"


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ('command = "exit 5"', "`/bin/sh` ended with status 5"),
        ('command = ["no-such-program"]', "`no-such-program` ended with status 127"),
        ('command = "sleep 60"\ntimeout_s = 1', "`/bin/sh` took longer than 1 s"),
        ('command = "exit 5"\nper = "task"', "`/bin/sh` ended with status 5"),
    ],
)
def test_a_start_up_command_that_fails(box, step, reason):
    refused(box("sh", "-c", "echo ran", edf=f"[[start]]\n{step}"), "start", f"environment: {reason}")


def test_a_stop_that_fails_is_told_and_changes_nothing(box):
    done = box("sh", "-c", "exit 7", hook='[[stop]]\ncommand = "exit 5"')
    assert done.returncode == 7
    assert "test: `/bin/sh` ended with status 5" in done.stderr


def test_variables_that_tasks_derive(box):
    text = "[annotations]\ncom.pyxis.pytorch_remap_vars = true"
    slurm = {"SLURM_PROCID": "5", "SLURM_JOB_ID": "123456", "LOCAL_RANK": "9", "SLURM_LOCALID": "1"}
    for nodes, first in (("nid[007-010,12],x", "nid007"), ("a,b", "a"), ("r[1-2]n3", "r1n3"), ("one", "one")):
        done = box("env", edf=text, env=slurm | {"SLURM_STEP_NODELIST": nodes})
        seen = dict(line.split("=", 1) for line in done.stdout.splitlines())
        assert (seen["RANK"], seen["MASTER_ADDR"], seen["MASTER_PORT"]) == ("5", first, "29956")
        assert seen["LOCAL_RANK"] == "9"
        assert "WORLD_SIZE" not in seen


def test_an_entrypoint_of_an_image_that_enroot_made(box):
    box.desk.write('echo "entered $#"\nexec "$@"\n', "rootfs/etc/rc")
    done = box("sh", "-c", "echo program", edf="entrypoint = true")
    assert done.stdout == "entered 3\nprogram\n", done.stderr
    assert box("sh", "-c", "echo program").stdout == "program\n"


def test_lines_that_the_node_has_for_a_device(box, monkeypatch):
    spec = box.desk.write("kind: x", "spec.yaml")
    lines = [Line(("symlink", "/bin/busybox", "/opt/link"), ""), Line(("ldcache", "/lib64"), "")]
    part = box.desk.directory / "part.plan"
    part.write_text(part_text(spec, (), (), lines))
    monkeypatch.setattr("piolet.env.cdi.ON_NODES", part.parent)
    part.rename(part.with_name("x.com_y=z.plan"))
    box.desk.use(cdi_on_nodes=True)
    text = 'devices = ["x.com/y=z"]'
    assert box("readlink", "/opt/link", edf=text).stdout == "/bin/busybox\n"
    spec.write_text("kind: other")
    refused(box("sh", edf=text), "devices", "is older than what it was made from")
    part.with_name("x.com_y=z.plan").unlink()
    refused(box("sh", edf=text), "plan", "No such file", "piolet env cdi")


@pytest.mark.parametrize("link", ["/data/real", "../data/real", "chain", "/"])
def test_a_mount_whose_target_is_a_link(box, link):
    root = box.desk.directory / "rootfs"
    box.desk.write("found\n", "source/file")
    (root / "opt").mkdir()
    (root / "opt/target").symlink_to(link)
    (root / "opt/chain").symlink_to("../else/where")
    done = box("cat", "/opt/target/file", edf='mounts = ["./source:/opt/target"]')
    if link == "/":
        assert done.returncode == 3 or done.stdout == "found\n"
    else:
        assert done.stdout == "found\n", done.stderr
    assert not Path("/data/real").exists()


def test_links_in_a_circle(box):
    root = box.desk.directory / "rootfs"
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    refused(box("sh", edf='mounts = ["/etc:/a"]'), "mount", "Too many levels of symbolic links")


def test_what_starts_is_the_users_alone(box):
    """The launcher takes no library from the caller's variables."""
    done = box("sh", "-c", "echo ran", env={"LD_PRELOAD": "/no/such.so", "PATH": sys.exec_prefix})
    assert done.stdout == "ran\n"


def test_the_overlay_has_a_size_or_a_directory(box):
    script = "head -c 3000000 /dev/zero > /big; ls -s /big | cut -c1-1 >/dev/null; echo x > /small && echo ok"
    done = box("sh", "-c", script, edf='[overlay]\nsize = "1m"')
    assert "No space left on device" in done.stderr
    kept = box.desk.directory / "kept"
    kept.mkdir()
    done = box("sh", "-c", "echo word > /etc/new; cat /etc/new", edf='[overlay]\ndirectory = "./kept"')
    assert done.stdout == "word\n", done.stderr
    (own,) = kept.iterdir()
    assert (own / "upper/etc/new").read_text() == "word\n"
    refused(box("sh", edf='[overlay]\ndirectory = "./none"'), "root", "none/", "No such file or directory")
