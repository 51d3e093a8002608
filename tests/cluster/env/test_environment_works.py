"""srun --environment: what a program in the container sees."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import oci_images
import pytest

pytestmark = pytest.mark.cluster


def served(site):
    """The squashfuse processes that serve this site's image; they hold it open as file 3."""
    found = []
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and Path(f"/proc/{entry.name}/fd/3").readlink() == site.image:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_tasks_of_a_node_share_one_container(site):
    plan = site.plan()
    done = site.srun(
        plan, "sh", "-c", "cat /proc/sys/kernel/hostname; ls -Li /proc/self/ns/mnt", nodes=2, flags=["-n4"]
    )
    namespaces = {line for line in done.stdout.splitlines() if "mnt" in line}
    assert len(done.stdout.splitlines()) == 8
    assert len(namespaces) == 2
    wait_until(lambda: not served(site))


def test_the_user_is_himself(site):
    done = site.srun(site.plan(), "sh", "-c", "id -un; id -u; id -g; grep NoNewPrivs /proc/self/status")
    name, uid, gid, no_new_privs = done.stdout.split("\n")[:4]
    assert name == (site.user or "root")
    status = site.directory.stat()
    assert (int(uid), int(gid)) == (status.st_uid, status.st_gid)
    assert no_new_privs.split() == ["NoNewPrivs:", "1"]


def test_precedence_of_variables(site):
    plan = site.plan('[env]\nFROM_EDF = "edf $A"\nBOTH = "edf"\nGONE = ""\n')
    host = {"BOTH": "host", "GONE": "host", "KEPT": "host", "FROM_IMAGE": "host", "LC_ALL": "C"}
    done = site.srun(plan, "env", env=host)
    seen = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert seen["FROM_EDF"] == "edf $A"
    assert seen["BOTH"] == "edf"
    assert seen["KEPT"] == "host"
    assert seen["FROM_IMAGE"] == "image"
    assert seen["PATH"] == "/bin"
    assert not {"GONE", "LANG", "LC_ALL"} & seen.keys()
    assert "SLURM_JOB_ID" in seen


def test_export_none_still_finds_the_plan(site):
    edf = site.edf(f'image = "{site.image}"')
    done = site.srun(edf, "/bin/only-in-the-image", "it", flags=["--export=NONE"])
    assert done.stdout == "ran it\n"


def test_a_program_that_only_the_image_has(site):
    assert site.srun(site.plan(), "only-in-the-image", "a b").stdout == "ran a b\n"


def test_writable_root_is_shared_by_the_tasks_and_ends_with_the_step(site):
    plan = site.plan()
    assert site.srun(plan, "sh", "-c", "touch /etc/new /bin/new /new && ls /new").stdout == "/new\n"
    assert site.srun(plan, "ls", "/new", check=False).returncode == 1


def test_readonly_root(site):
    done = site.srun(site.plan("writable = false"), "touch", "/etc/new", check=False)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr


def test_mounts_workdir_and_private_tmp(site):
    plan = site.plan(
        f'workdir = "{site.directory}"\n',
        lambda body: body + f"mount bind {site.directory} /data/deep/er ro\nmount tmpfs /scratch size=1m\n",
    )
    done = site.srun(plan, "sh", "-c", "echo $PWD; touch /data/deep/er/x; touch /scratch/ok; ls /tmp /scratch; mount")
    lines = done.stdout.splitlines()
    assert lines[0] == str(site.directory)
    assert "Read-only file system" in done.stderr
    assert lines[1:4] == ["/scratch:", "ok", ""]
    assert all("nosuid" in line for line in lines if " type " in line)


def test_exit_status_and_quoting(site):
    plan = site.plan()
    assert site.srun(plan, "sh", "-c", "exit 7", check=False).returncode == 7
    assert site.srun(plan, "sh", "-c", "kill -9 $$", check=False).returncode == 137
    assert site.srun(plan, "only-in-the-image", "*", "$HOME", "").stdout == "ran * $HOME \n"


def test_images_that_belong_to_the_user(site, image_maker):
    status = site.directory.stat()
    owner = ["-force-uid", str(status.st_uid), "-force-gid", str(status.st_gid)]
    image = image_maker(site.directory, "own", *owner)
    done = site.srun(site.edf(f'image = "{image}"'), "sh", "-c", "touch /etc/new && stat -c %u /bin/sh /etc/new")
    assert done.stdout.split() == [str(status.st_uid)] * 2


def test_a_directory_as_image(site):
    tree = site.directory / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (tree / "bin/busybox").chmod(0o755)
    done = site.srun(site.edf(f'image = "{tree}"'), "/bin/busybox", "ls", "/")
    assert "bin" in done.stdout.split()


@contextlib.contextmanager
def started(site, program):
    """A step of one task that has written "up"."""
    step = subprocess.Popen(
        ["srun", "-N1", f"--environment={site.plan()}", "sh", "-c", f"echo up; {program}"],
        cwd=site.directory,
        env=site.on_lab.environment(site.user),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        user=site.user,
    )
    try:
        assert step.stdout.readline() == "up\n"
        yield step
    finally:
        step.kill()
        step.communicate()
        site.run("scancel", "--me")


def test_squashfuse_outlives_the_signals_of_the_step_and_not_the_step(user_site):
    trapped = user_site.directory / "trapped"
    with started(user_site, f"trap '/bin/cat /etc/passwd > {trapped}; exit 5' TERM; sleep 30 & wait") as step:
        assert len(served(user_site)) == 1
        job = user_site.run("squeue", "--me", "--noheader", "--states=running", "--format=%i").stdout.strip()
        user_site.run("scancel", "--signal=TERM", f"{job}.0")
        assert step.wait(timeout=30) == 5
    assert "root" in trapped.read_text()
    wait_until(lambda: not served(user_site))


def test_nothing_is_left_after_slurmstepd_is_killed(user_site):
    own_pid = user_site.directory / "pid"
    with started(user_site, f"echo $$ > {own_pid}; sleep 60"):
        wait_until(lambda: own_pid.exists() and own_pid.read_text())
        task = int(own_pid.read_text())
        assert len(served(user_site)) == 1
        stepd = int(re.search(r"PPid:\s(\d+)", Path(f"/proc/{task}/status").read_text())[1])
        os.kill(stepd, signal.SIGKILL)
        for pid in _tree(task):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not served(user_site))


def _tree(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(descendant for child in children for descendant in _tree(int(child)))]


def test_the_container_outlives_the_task_that_built_it(site):
    program = "test $SLURM_LOCALID = 0 && exit 0; sleep 1; /bin/only-in-the-image later"
    done = site.srun(site.plan(), "sh", "-c", program, flags=["-n3"])
    assert done.stdout.splitlines() == ["ran later"] * 2
    wait_until(lambda: not served(site))


def test_a_squashfs_file_is_mounted_on_every_node(site):
    edf = site.edf(f'image = "{site.image}"\nmounts = ["{site.image}:/again:sqsh"]')
    done = site.srun(edf, "cat", "/again/etc/environment", nodes=2)
    assert done.stdout.count("FROM_IMAGE=image\n") == 2


def test_an_image_of_the_store_runs_on_every_node(user_site):
    made = oci_images.layout(user_site.directory / "layout", [oci_images.busybox_layer()], Env=["PATH=/bin", "A=of it"])
    user_site.run(sys.executable, "-m", "piolet", "env", "import", made, "--name", "tool:1")
    done = user_site.srun(user_site.edf('image = "localhost/tool:1"'), "sh", "-c", "echo $A; cat /etc/release", nodes=2)
    assert done.stdout.count("of it\n") == 2
    assert done.stdout.count("made by a test\n") == 2


def test_sbatch_and_salloc_refuse_environments(user_site):
    script = user_site.directory / "job.sh"
    script.write_text(f"#!/bin/sh\n#SBATCH --environment=demo\ntouch {user_site.marker}\n")
    for argv in (
        ("sbatch", script),
        ("sbatch", "--environment=demo", script),
        ("salloc", "--environment=demo", "true"),
    ):
        done = user_site.run(*argv, check=False)
        assert done.returncode != 0
        assert "--environment is srun's" in done.stderr
        assert "srun --environment=demo PROGRAM" in done.stderr
    assert not user_site.marker.exists()
