"""Images that the site trusts are mounted by the kernel, and only those."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster


@pytest.fixture
def trusted(user_site, image_maker):
    """An image with a device in it, in the lab's directory of images, which root has verified."""
    images = user_site.on_lab.lab.directory / "images"
    images.mkdir(mode=0o755, exist_ok=True)
    made = image_maker(
        user_site.directory, "device", prepare=lambda tree: os.mknod(tree / "null", 0o20666, os.makedev(1, 3))
    )
    image = images / f"{user_site.directory.name}.sqsh"
    shutil.copy(made, image)
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    subprocess.run([sys.executable, "-m", "piolet", "env", "trust", image, digest], check=True, capture_output=True)
    yield image
    for path in images.glob(f"{image.name}*"):
        path.unlink()


@contextlib.contextmanager
def started(site, image, *flags):
    """A step in the image that waits; yields what it has said."""
    edf = site.edf(f"image = {str(image)!r}")
    script = "id -u; touch /etc/new; stat -c %u /etc/new /bin/sh; head -c 1 /null; echo end; cat"
    step = subprocess.Popen(
        ["srun", "-N1", *flags, f"--environment={edf}", "sh", "-c", script],
        cwd=site.directory,
        env=site.on_lab.environment(site.user) | {"PIOLET_ROOT": str(site.directory / "root")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        user=site.user,
    )
    lines = []
    try:
        while not lines or lines[-1] not in {"", "end\n"}:
            lines.append(step.stdout.readline())
        yield lines
    finally:
        step.communicate(timeout=60)


def in_kernel(image):
    """Whether the kernel has the image mounted: it is behind a loop device."""
    return str(image) in {path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")}


def test_an_image_that_the_site_trusts_is_mounted_by_the_kernel(user_site, trusted):
    uid = str(user_site.directory.stat().st_uid)
    with started(user_site, trusted) as lines:
        assert in_kernel(trusted)
        assert [line.strip() for line in lines] == [uid, uid, uid, "end"]  # and the device of the image is inert
    deadline = time.monotonic() + 60
    while in_kernel(trusted):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _no_record(image, _own):
    image.with_name(image.name + ".trusted").unlink()
    return image


def _changed_since(image, _own):
    os.utime(image, ns=(1, 1))
    return image


def _others_may_write(image, _own):
    image.chmod(0o646)
    return image


def _of_a_user(image, own):
    os.chown(image, own.parent.stat().st_uid, -1)
    return image


def _a_link(image, own):
    image.unlink()
    image.symlink_to(own)
    return image


def _from_above(image, own):
    return image.parent / ".." / os.path.relpath(own, image.parent.parent)


def _of_another_directory(_image, own):
    return own


@pytest.mark.parametrize(
    "change",
    [_no_record, _changed_since, _others_may_write, _of_a_user, _a_link, _from_above, _of_another_directory],
)
def test_what_root_did_not_verify_is_served_as_the_user(user_site, trusted, change):
    """The user says which image, in the plan and in the variable that the plugin sends along."""
    path = change(trusted, user_site.image)
    with started(user_site, path, f"--export=ALL,SLURM_PIOLET_IMAGE={path}") as lines:
        assert lines[-1] == "end\n"
        assert not any(in_kernel(each) for each in (path, trusted, user_site.image))


def test_a_plan_with_another_image_than_the_one_that_is_trusted(user_site, trusted):
    plan = user_site.plan()
    done = user_site.srun(plan, "ls", "/null", flags=[f"--export=ALL,SLURM_PIOLET_IMAGE={trusted}"], check=False)
    assert "No such file" in done.stderr
