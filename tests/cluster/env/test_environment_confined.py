"""Containers where Slurm confines steps by cgroups: what serves the image is confined as well."""

import re
import secrets
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from piolet.lab import Isolation, Spec, up
from piolet.lab.spec import Network

pytestmark = pytest.mark.cluster


@pytest.fixture
def confined(user_site, commands_on):
    if not Path("/sys/fs/cgroup/freezer/tasks").exists():
        pytest.skip("needs cgroup v1")
    lab = up(Spec(name=f"cg-{secrets.token_hex(3)}", nodes=1, isolation=Isolation.CGROUP))
    yield replace(user_site, on_lab=commands_on(lab))
    lab.down()


def test_squashfuse_is_in_the_cgroups_of_the_step(confined):
    argv = ["srun", "-N1", f"--environment={confined.plan()}", "sh", "-c", "echo up; sleep 60"]
    step = subprocess.Popen(
        argv,
        cwd=confined.directory,
        env=confined.on_lab.environment(confined.user),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        user=confined.user,
    )
    try:
        assert step.stdout.readline() == "up\n"
        (server,) = [entry for entry in Path("/proc").glob("[0-9]*") if _serves(entry, confined.image)]
        groups = (server / "cgroup").read_text()
        for controller in ("freezer", "memory", "devices"):
            assert re.search(rf":{controller}:/.*/step_0", groups), groups
        assert (server / "oom_score_adj").read_text() == "0\n"
    finally:
        confined.run("scancel", "--me")
        step.communicate(timeout=30)


def _serves(process, image):
    try:
        return (process / "fd/3").readlink() == image
    except OSError:
        return False


def test_nodes_with_networks_of_their_own(user_site, commands_on):
    lab = up(Spec(name=f"nn-{secrets.token_hex(3)}", nodes=2, network=Network.NETNS))
    try:
        site = replace(user_site, on_lab=commands_on(lab))
        edf = site.edf(f'image = "{site.image}"')
        done = site.srun(edf, "/bin/busybox", "ip", "-o", "-4", "address", nodes=2)
        addresses = re.findall(r"inet (\S+)/", done.stdout)
        assert len({address for address in addresses if address != "127.0.0.1"}) == 2, done
    finally:
        lab.down()
