"""Steps in environments from jobs of every kind: arrays, heterogeneous ones, requeued ones, allocations of salloc."""

import re
import time

import pytest

pytestmark = pytest.mark.cluster


@pytest.fixture
def two(user_site):
    """Options of two environments, that of a squashfs image and that of a directory, each with a word of its own."""
    image, tree = user_site.image, user_site.directory / "tree"
    user_site.run("unsquashfs", "-no-progress", "-quiet", "-no-xattrs", "-d", tree, image)
    names = {"one": image, "two": tree}
    edfs = [user_site.edf(f'image = "{path}"\n[env]\nWORD = "{name}"', name) for name, path in names.items()]
    return [f"--environment={edf}" for edf in edfs]


def submit(site, lines, *flags):
    """Submit a script of `lines`, and return the job's id."""
    script = site.directory / "job.sh"
    script.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
    return site.run("sbatch", "--parsable", *flags, script).stdout.strip()


def wait_for(site, job):
    """Wait until the job has ended; each change makes the scheduler look again, which else takes half a minute."""
    while site.run("squeue", "--noheader", "--jobs", job, check=False).stdout:
        site.run("scontrol", "update", f"jobid={job}", "comment=wait", check=False)
        time.sleep(0.2)


def test_the_tasks_of_an_array_start_steps_in_several_environments(user_site, two):
    one, other = two
    show = "sh -c 'echo $WORD $SLURM_ARRAY_TASK_ID; test -e /.piolet'"
    lines = [f"srun -n1 {one} {show} &", f"srun -n1 {other} {show} &", "wait", f"srun -n1 {other} {show}"]
    wait_for(user_site, submit(user_site, lines, "--array=1-2", "-n2", "--output=said-%a"))
    for task in "12":
        said = (user_site.directory / f"said-{task}").read_text()
        assert sorted(re.findall(rf"^\w+ {task}$", said, re.MULTILINE)) == [f"one {task}", f"two {task}", f"two {task}"]


def test_parts_of_a_heterogeneous_job(user_site, two):
    """A step of several parts has one environment, whichever part names it."""
    one, other = two
    show = "sh -c 'echo $WORD $SLURM_PROCID'"
    lines = [
        "#SBATCH -N1",
        "#SBATCH hetjob",
        "#SBATCH -N1",
        f"srun --het-group=1 {other} {show}",
        f"srun --het-group=0,1 {one} {show}",
        f"srun --het-group=0 {show} : --het-group=1 {one} {show}",
        f"srun --het-group=0 {one} touch {user_site.marker} : --het-group=1 {other} touch {user_site.marker}",
    ]
    wait_for(user_site, submit(user_site, lines, "--output=said"))
    said = (user_site.directory / "said").read_text()
    assert sorted(re.findall(r"^\w+ \d$", said, re.MULTILINE)) == ["one 0"] * 2 + ["one 1"] * 2 + ["two 0"]
    assert "one srun has one environment" in said
    assert not user_site.marker.exists()


def test_a_job_that_is_requeued(user_site, two):
    once = 'test -n "$SLURM_RESTART_COUNT" || { scontrol requeue $SLURM_JOB_ID; sleep 60; }'
    lines = [f"srun {two[0]} sh -c 'echo $WORD $SLURM_RESTART_COUNT'", once]
    job = submit(user_site, lines, "--requeue", "--open-mode=append", "--output=said")
    while "BeginTime" not in user_site.run("squeue", "--noheader", "--format=%r", "--jobs", job).stdout:
        time.sleep(0.1)
    # Slurm waits two minutes, since a node may refuse a credential that is as old as what it has revoked.
    user_site.on_lab("scontrol", "update", f"jobid={job}", "StartTime=now+3")
    wait_for(user_site, job)
    assert re.findall(r"^one.*", (user_site.directory / "said").read_text(), re.MULTILINE) == ["one", "one 1"]


def test_an_allocation_of_salloc(user_site, two):
    one, other = two
    steps = f"srun {one} sh -c 'echo $WORD'; srun -N1 -n1 {other} sh -c 'echo $WORD'"
    done = user_site.run("salloc", "-N2", "sh", "-c", steps)
    assert done.stdout.split() == ["one", "one", "two"]
