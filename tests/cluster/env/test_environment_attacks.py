"""The plan and the image are the user's, and the user is not trusted: none of this gains anything."""

import os
import pwd
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster


def _evil(tree):
    (tree / "opt/busybox").write_bytes((tree / "bin/busybox").read_bytes())
    (tree / "opt/busybox").chmod(0o6755)
    for name, major, minor in (("disk", 254, 0), ("null", 1, 3)):
        os.mknod(tree / name, 0o60666 if name == "disk" else 0o20666, os.makedev(major, minor))
    (tree / "out").symlink_to("/../../../..")
    (tree / "proc-root").symlink_to("/proc/self/root")


@pytest.fixture
def evil(user_site, image_maker):
    """The user's site, with an image that was made as root would make it."""
    image_maker(user_site.directory, "image", prepare=_evil)
    return user_site


def test_set_user_id_programs_are_inert(evil):
    uid = pwd.getpwnam(evil.user).pw_uid
    done = evil.srun(evil.plan(), "/opt/busybox", "id")
    assert done.stdout.split()[0] == f"uid={uid}({evil.user})"
    assert "euid=0" not in done.stdout
    status = evil.srun(evil.plan(), "/opt/busybox", "cat", "/proc/self/status").stdout
    assert "CapEff:\t0000000000000000" in status


def test_devices_of_the_image_are_inert(evil):
    done = evil.srun(evil.plan(), "sh", "-c", "head -c 1 /disk; head -c 1 /null; ls -l /null", check=False)
    assert done.stderr.count("Permission denied") == 2
    assert done.stdout.startswith("c")


def test_a_set_user_id_program_of_the_host_is_inert(evil):
    plan = evil.plan(
        change=lambda body: (
            body + "mount bind /usr/bin /hostbin -\nmount bind /lib64 /lib64 -\n"
            "mount bind /usr/lib /lib -\nmount bind /usr/lib /usr/lib -\n"
        )
    )
    done = evil.srun(plan, "/hostbin/su", "-c", "id", check=False)
    assert done.returncode != 0
    assert "uid=0" not in done.stdout


@pytest.mark.parametrize("file", ["/etc/shadow", "/root"])
def test_secrets_of_root_stay_secret(evil, file):
    plan = evil.plan(change=lambda body: body + f"mount bind {file} /secret -\n")
    done = evil.srun(plan, "sh", "-c", "ls /secret/ || cat /secret", check=False)
    assert done.returncode != 0
    assert "denied" in done.stderr
    assert done.stdout == ""


def test_binds_over_etc_change_nothing_outside(evil):
    own = evil.directory / "etc"
    own.mkdir()
    own.chmod(0o777)
    (own / "passwd").write_text("evil::0:0::/:/bin/sh\n")
    before = Path("/etc/passwd").read_text()
    plan = evil.plan(change=lambda body: body + f"mount bind {own} /etc -\n")
    done = evil.srun(plan, "sh", "-c", f"cat /etc/passwd; touch /etc/new; id; touch {evil.marker}")
    assert "uid=0" not in done.stdout
    assert evil.marker.stat().st_uid == pwd.getpwnam(evil.user).pw_uid
    assert Path("/etc/passwd").read_text() == before


@pytest.mark.parametrize("way", ["/out", "/proc-root", "/out/proc-root"])
def test_symbolic_links_in_targets_stay_inside(evil, way):
    name = f"piolet-escape-{os.getpid()}"
    plan = evil.plan(change=lambda body: body + f"mount bind /etc/hostname {way}/{name} -\n")
    done = evil.srun(plan, "cat", f"/{name}", check=False)
    assert not Path(f"/{name}").exists()
    if way == "/out":
        assert done.stdout == Path("/etc/hostname").read_text()
    else:
        assert "stage:  mount" in done.stderr


def test_parents_in_targets_are_refused(evil):
    plan = evil.plan(change=lambda body: body + "mount bind /etc /data/../../etc -\n")
    evil.assert_refused(plan, "plan", "the target is not an absolute path")


def test_anothers_plan_is_read_as_the_user(evil):
    """Root would be able to read it; the one who asks is not."""
    plan = evil.plan()
    os.chown(plan, 0, 0)
    plan.chmod(0o600)
    evil.assert_refused(plan, "plan", "Permission denied")


def test_a_plan_swapped_for_a_link_to_a_secret(evil):
    plan = evil.plan()
    plan.unlink()
    plan.symlink_to("/etc/shadow")
    # srun resolves the link already: what it points to is no plan's name, and no node ever reads it.
    done = evil.srun(plan, "touch", evil.marker, check=False)
    assert done.returncode == 3
    assert "root:" not in done.stderr
    assert not evil.marker.exists()


def test_mounts_cannot_be_taken_off_inside(evil):
    plan = evil.plan(change=lambda body: body + "mount bind /etc/hostname /etc/fixed ro\n")
    done = evil.srun(plan, "sh", "-c", "umount /etc/fixed || umount -l /etc/fixed; cat /etc/fixed", check=False)
    assert done.stdout == Path("/etc/hostname").read_text()
    assert "umount" in done.stderr
