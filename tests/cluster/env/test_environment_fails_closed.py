"""Whatever is wrong with a container, its program runs nowhere, and the step's stderr says what and why."""

import os

import pytest

pytestmark = pytest.mark.cluster


@pytest.fixture
def site(user_site):
    """As the ordinary user only: who asks makes no difference to what is wrong here."""
    return user_site


def test_torn_plan(site):
    plan = site.plan()
    plan.write_text(plan.read_text()[: len(plan.read_text()) // 2])
    site.assert_refused(plan, "plan", "it is torn")


def test_changed_plan(site):
    plan = site.plan()
    plan.write_text(plan.read_text().replace("root writable", "root readonly"))
    site.assert_refused(plan, "plan", "it is torn")


def test_empty_plan(site):
    plan = site.plan()
    plan.write_text("")
    site.assert_refused(plan, "plan", "not a container plan")


def test_oversized_plan(site):
    plan = site.plan(change=lambda body: body + "set A b\n" * 200_000)
    site.assert_refused(plan, "plan", "too large")


def test_plan_of_another_version(site):
    plan = site.plan(change=lambda body: body.replace("piolet-plan 1", "piolet-plan 2"))
    site.assert_refused(plan, "plan", "it has version 2, and this node reads version 1")


def test_plan_with_an_unknown_word(site):
    plan = site.plan(change=lambda body: body + "exec /bin/sh\n")
    site.assert_refused(plan, "plan", 'unknown word "exec"')


def test_plan_that_is_no_file(site):
    path = site.directory / "pipe.plan"
    os.mkfifo(path, 0o666)
    site.assert_refused(path, "plan", "is not a file")


def test_plan_that_nodes_do_not_see(user_site):
    """The submitting host has the plan, on a file system of its own."""
    site = user_site
    plan = site.plan()
    become = f"setpriv --reuid={site.user} --regid={site.user} --clear-groups"
    private = site.directory / "private"
    private.mkdir()
    script = (
        f"mount -t tmpfs -o mode=755 none {private} && cp {plan} {private}/own.plan && chmod 644 {private}/own.plan && "
        f"exec {become} srun --environment={private}/own.plan touch {site.marker}"
    )
    done = site.on_lab("unshare", "--mount", "sh", "-c", script, check=False, cwd=site.directory)
    assert done.returncode == 3
    assert "stage:  plan" in done.stderr
    assert "No such file or directory" in done.stderr
    assert "on a file system that nodes share" in done.stderr
    assert not site.marker.exists()


def test_missing_image(site):
    plan = site.plan()
    site.image.unlink()
    site.assert_refused(plan, "image", "image.sqsh: No such file or directory")


def test_image_that_changed_since(site):
    plan = site.plan()
    os.utime(site.image, ns=(0, 0))
    site.assert_refused(plan, "image", "has changed since the environment was compiled")


def _image_line(path):
    status = path.stat()
    return f"image squashfs {path} {status.st_size} {status.st_mtime_ns}"


def _with_image(site, path):
    return site.plan(change=lambda body: body.replace(_image_line(site.image), _image_line(path)))


def test_image_that_is_not_squashfs(site):
    other = site.directory / "other.sqsh"
    other.write_bytes(b"not an image" * 1000)
    site.assert_refused(_with_image(site, other), "image", "other.sqsh is not a squashfs image")


def test_image_that_squashfuse_refuses(site):
    other = site.directory / "other.sqsh"
    other.write_bytes(site.image.read_bytes()[:2000])
    site.assert_refused(_with_image(site, other), "image", "squashfuse could not serve")


def test_image_of_another_user(user_site):
    plan = user_site.plan()
    user_site.image.chmod(0o600)
    user_site.assert_refused(plan, "image", "Permission denied")


def test_bad_mount_source(site):
    plan = site.plan(change=lambda body: body + "mount bind /no/such/place /data -\n")
    site.assert_refused(plan, "mount", "source /no/such/place: No such file or directory")


def test_mount_target_of_the_wrong_kind(site):
    plan = site.plan(change=lambda body: body + "mount bind /usr /bin/busybox -\n")
    site.assert_refused(plan, "mount", "target /bin/busybox for /usr: Not a directory")


def test_missing_workdir(site):
    plan = site.plan('workdir = "/not/there"')
    site.assert_refused(plan, "workdir", "/not/there: No such file or directory")


def test_no_fuse(user_site):
    fuse = user_site.on_lab.lab.directory / "dev/fuse"
    plan = user_site.plan()
    fuse.chmod(0o600)
    try:
        user_site.assert_refused(plan, "image", "/dev/fuse: Permission denied")
    finally:
        fuse.chmod(0o666)


def test_every_node_says_so_once(site):
    plan = site.plan(change=lambda body: body + "mount bind /no/such/place /data -\n")
    done = site.srun(plan, "touch", site.marker, nodes=2, flags=["-n4"], check=False)
    assert done.returncode == 3
    assert done.stderr.count("the container could not be started on") == 2
    assert not site.marker.exists()


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ("", "--environment needs the name"),
        ("no-such-name", 'no environment "no-such-name"'),
        ("./no-such.toml", "no such environment file"),
        ("./no-such.plan", "cannot be used; nothing was started"),
    ],
)
def test_srun_refuses_before_there_is_a_job(site, environment, reason):
    before = site.run("squeue", "--noheader", "--states=all", "--format=%i").stdout
    done = site.srun(environment, "touch", site.marker, check=False)
    assert done.returncode != 0
    assert reason in done.stderr
    assert not site.marker.exists()
    assert site.run("squeue", "--noheader", "--states=all", "--format=%i").stdout == before


def test_two_environments_in_one_srun(site):
    done = site.srun(site.plan(), f"--environment={site.image}", "touch", site.marker, check=False)
    assert done.returncode != 0
    assert "one srun has one environment" in done.stderr
    assert not site.marker.exists()
