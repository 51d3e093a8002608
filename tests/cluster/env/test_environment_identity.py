"""Who the user is in a container: with several groups, in an image that knows neither the user nor the groups."""

import os
import pwd
import secrets
import subprocess
import sys

import pytest

pytestmark = pytest.mark.cluster


@pytest.fixture
def groups(on_lab):
    """A new user in two groups besides their own; the names of the user and of the groups."""
    del on_lab  # the user must be unknown to a cluster that is up already, since Slurm remembers who is in which group
    names = [f"piolet-{secrets.token_hex(3)}" for _ in range(3)]
    for name in names[1:]:
        subprocess.run(["groupadd", name], check=True)
    subprocess.run(["useradd", "--user-group", "--groups", ",".join(names[1:]), names[0]], check=True)
    yield names
    subprocess.run(["userdel", "--force", names[0]], check=True, capture_output=True)
    for name in names[1:]:
        subprocess.run(["groupdel", name], check=True)


def test_a_user_in_several_groups(user_site, groups):
    name, second, third = groups
    user = pwd.getpwnam(name)
    os.chown(user_site.directory, user.pw_uid, user.pw_gid)
    for group in (second, third):
        (user_site.directory / group).mkdir()
        (user_site.directory / group / "word").write_text(f"of {group}\n")
        subprocess.run(["chown", "-R", f"root:{group}", user_site.directory / group], check=True)
        (user_site.directory / group).chmod(0o2770)
    script = f"cat {second}/word {third}/word; touch {second}/new; id -un; id -gn; id -Gn; id -g"
    edf = user_site.edf(
        f'image = "{user_site.image}"\nmounts = ["{user_site.directory}"]\nworkdir = "{user_site.directory}"'
    )
    become = ("setpriv", f"--reuid={name}", f"--regid={name}", "--init-groups")
    done = user_site.on_lab(
        *(*become, "srun", "-N2", f"--environment={edf}", "sh", "-c", script),
        cwd=user_site.directory,
        env={"PIOLET_ROOT": str(user_site.directory / "root"), "HOME": str(user_site.directory), "USER": name},
    )
    said = sorted(done.stdout.splitlines())
    assert (said.count(f"of {second}"), said.count(f"of {third}"), said.count(name)) == (2, 2, 4)
    assert [line for line in said if line.endswith("nogroup")] == [f"{name} nogroup nogroup"] * 2
    assert said.count(str(user.pw_gid)) == 2
    assert "cannot find name" not in done.stderr
    new = (user_site.directory / second / "new").stat()
    assert new.st_uid == user.pw_uid
    assert new.st_gid == (user_site.directory / second).stat().st_gid


def test_a_user_without_a_name(user_site):
    """Known by a number alone, as where the directory service is down; Slurm itself takes no such user."""
    tree = user_site.directory / "tree"
    user_site.on_lab("unsquashfs", "-no-progress", "-quiet", "-no-xattrs", "-d", tree, user_site.image)
    edf = user_site.edf(f'image = "{tree}"')
    subprocess.run(["chown", "-R", "61234:61234", user_site.directory], check=True)
    become = ["setpriv", "--reuid=61234", "--regid=61234", "--clear-groups"]
    script = "id -u; id -g; touch /etc/new; stat -c %u:%g /etc/new"
    done = subprocess.run(
        [*become, sys.executable, "-m", "piolet", "env", "run", edf, "--", "sh", "-c", script],
        cwd=user_site.directory,
        env={"PATH": os.environ["PATH"], "PIOLET_ROOT": str(user_site.directory), "HOME": str(user_site.directory)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["61234", "61234", "61234:61234"]
