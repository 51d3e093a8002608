"""Faults of nodes with a network of their own: each ends in the right verdict within its time, and leaves nothing."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from piolet.core.nodeset import NodeSet
from piolet.lab import Isolation, Lab, Network, Spec, status, up
from piolet.lab.cgroups import group_name
from piolet.lab.network import link_name

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

CPU = Path("/sys/fs/cgroup/cpu")
PERIOD_US = 100_000
MEASURED = "{type: memory_bandwidth, mib: 256, timeout: 60, criteria: {peers: {mad: 5, margin: 0.5}}}"
PASSES = '{"status": "pass", "reason": "fine", "value": %s}'


@pytest.fixture(scope="module")
def netns(machine: None) -> Iterator[Lab]:  # noqa: ARG001 - a fixture for its effect
    """A lab of four nodes, each with a network namespace."""
    confined = Isolation.CGROUP if CPU.is_dir() else Isolation.NONE
    lab = up(Spec(name=f"vetns-{secrets.token_hex(3)}", nodes=4, network=Network.NETNS, isolation=confined))
    yield lab
    lab.down()


@pytest.fixture
def vet(netns: Lab, commands_on: Callable, tmp_path: Path) -> Callable:
    """Vet the nodes of the lab."""
    return vetting(commands_on(netns), tmp_path)


def vetting(run: Callable, tmp_path: Path) -> Callable:
    """Make a function that vets four nodes, with `break_it` once all are being checked; gives verdict and status."""
    tmp_path.chmod(0o777)

    def vetted(entry: str, break_it: Callable[[], object] | None = None, timeout_s: int = 30) -> tuple[dict, int]:
        path = tmp_path / "protocol.yaml"
        path.write_text(f"evals:\n- {entry}\n", encoding="utf-8")
        breaker = threading.Thread(target=_break, args=(tmp_path, break_it))
        breaker.start()
        command = (sys.executable, "-m", "piolet", "vet", "run", "--protocol", str(path), "--timeout", str(timeout_s))
        try:
            done = run("salloc", "--quiet", "--no-kill", "-N4", *command, "--format", "json", check=False, timeout=300)
        finally:
            breaker.join()
        assert done.stdout, done.stderr
        _wait_until_idle(run)
        return json.loads(done.stdout), done.returncode

    return vetted


def _break(directory: Path, break_it: Callable[[], object] | None) -> None:
    deadline = time.monotonic() + 120
    while break_it and len(list(directory.glob("checks.*"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    if break_it:
        break_it()


def _wait_until_idle(run: Callable) -> None:
    deadline = time.monotonic() + 120
    while run("squeue", "--noheader", "--steps").stdout or run("squeue", "--noheader").stdout:
        assert time.monotonic() < deadline, "a step or a job was left behind"
        time.sleep(0.2)


def script(text: str, **more: object) -> str:
    """An entry of a protocol that runs a shell script."""
    return json.dumps({"type": "script", "command": ["sh", "-c", text], "timeout": 20} | more)


def mounted(lab: Lab, node: str, image: Path) -> subprocess.Popen:
    """Mount `image` at /mnt of a node; ending the server unmounts it."""
    enter = ("nsenter", "--mount", f"--target={status(lab).daemons[f'slurmd@{node}']}")
    server = subprocess.Popen([*enter, "squashfuse", "-f", "-o", "allow_other", image, "/mnt"])
    deadline = time.monotonic() + 30
    while subprocess.run([*enter, "mountpoint", "--quiet", "/mnt"], check=False).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return server


def reasons(verdict: dict) -> dict[str, str]:
    return {each["node"]: each["reason"] for each in verdict["refused"]}


def inside(lab: Lab, node: str, text: str) -> None:
    target = f"--target={status(lab).daemons[f'slurmd@{node}']}"
    subprocess.run(["nsenter", "--mount", target, "sh", "-c", text], check=True)


def test_a_link_that_is_cut_during_a_stage(netns, vet, tmp_path):
    link = link_name(netns, "node2")
    slow = script(f"touch {tmp_path}/checks.$SLURMD_NODENAME; sleep 3; echo '{PASSES % 1}'")
    try:
        verdict, status_code = vet(slow, lambda: subprocess.run(["ip", "link", "set", link, "down"], check=True))
    finally:
        subprocess.run(["ip", "link", "set", link, "up"], check=True)

    assert (status_code, verdict["ready"], verdict["unknown"]) == (3, "node[1,3-4]", "node2")
    assert reasons(verdict)["node2"].startswith("no answer")


@pytest.mark.skipif(not CPU.is_dir(), reason="a node is slowed down through the cpu hierarchy of cgroup v1")
def test_a_node_of_a_third_of_the_speed(netns, vet):
    """Its processors are there a sixth of the time: four nodes on two processors have half of it each."""
    quota = CPU / group_name(netns.directory) / "node3" / "cpu.cfs_quota_us"
    quota.write_text(str(int(os.cpu_count() * PERIOD_US / 2 / 6)), encoding="ascii")
    try:
        verdict, status_code = vet(MEASURED, timeout_s=120)
    finally:
        quota.write_text("-1", encoding="ascii")

    assert (status_code, verdict["ready"]) == (1, "node[1-2,4]"), verdict["checks"]
    assert "the median of 4 nodes is" in reasons(verdict)["node3"]


def test_a_mount_that_hangs_during_a_stage(netns, vet, tmp_path):
    """Its server stops while the nodes are being checked; another check comes upon it."""
    image = tmp_path / "image.sqfs"
    (tmp_path / "content").mkdir()
    subprocess.run(["mksquashfs", tmp_path / "content", image, "-quiet", "-no-progress"], check=True)
    servers = {node: mounted(netns, node, image) for node in netns.nodes}
    slow = script(f"touch {tmp_path}/checks.$SLURMD_NODENAME; sleep 3; echo '{PASSES % 1}'", stage="before")
    try:
        entries = f"{slow}\n- {{type: mounts, paths: [/mnt], answer_s: 1}}"
        verdict, status_code = vet(entries, lambda: servers["node2"].send_signal(signal.SIGSTOP))
    finally:
        for server in servers.values():
            server.send_signal(signal.SIGCONT)
            server.terminate()
            server.wait(10)

    assert (status_code, verdict["ready"]) == (1, "node[1,3-4]")
    assert reasons(verdict) == {"node2": "mounts: /mnt: no answer within 1 s"}


def test_a_full_tmp(netns, vet):
    inside(netns, "node4", "mount -t tmpfs -o size=1m tmpfs /tmp && head -c 950000 /dev/zero > /tmp/filler")
    try:
        verdict, status_code = vet("{type: disk}")
    finally:
        inside(netns, "node4", "umount /tmp")

    assert (status_code, verdict["ready"]) == (1, "node[1-3]")
    assert reasons(verdict)["node4"] == "disk: /tmp: 91% of its space is in use"


def test_a_check_that_hangs_on_one_node(vet):
    verdict, status_code = vet(script(f"[ $SLURMD_NODENAME = node1 ] && sleep 500; echo '{PASSES % 1}'", timeout=2))

    assert (status_code, verdict["unknown"]) == (3, "node1")
    assert "within 2 s" in reasons(verdict)["node1"]


def test_a_slurmd_that_is_killed_during_a_stage(machine, commands_on, tmp_path):  # noqa: ARG001 - for its effect
    """Its step goes on without it and may answer or not: both are right. On a busy machine Slurm loses others' too."""
    slow = script(f"touch {tmp_path}/checks.$SLURMD_NODENAME; sleep 3; echo '{PASSES % 1}'")
    lab = up(Spec(name=f"vetns-{secrets.token_hex(3)}", nodes=4, network=Network.NETNS))
    try:
        pid = str(status(lab).daemons["slurmd@node3"])
        vet = vetting(commands_on(lab), tmp_path)
        verdict, status_code = vet(slow, lambda: subprocess.run(["kill", "-9", pid], check=True))
    finally:
        lab.down()

    passed = NodeSet(each["node"] for each in verdict["checks"] if each["status"] == "pass")
    assert str(NodeSet("node[1-4]") - passed) == verdict["unknown"]
    assert (status_code, passed == NodeSet("node[1-4]")) in {(0, True), (3, False)}
    assert len(passed) >= 2
