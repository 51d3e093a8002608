"""A lab comes up, survives kills and leaves nothing."""

from __future__ import annotations

import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from piolet.core.errors import PioletError, Refused, StorageError, ToolMissing
from piolet.lab import Isolation, Network, Spec, bring_up, down, open_lab, processes, status, up
from piolet.lab.cluster import labs_directory

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("machine")]

PIOLET = [sys.executable, "-m", "piolet"]


@pytest.fixture
def name(assert_no_trace: Callable[[Path], None], labs: Path) -> Iterator[str]:
    name = f"life-{secrets.token_hex(3)}"
    yield name
    down(name, labs)
    assert_no_trace(labs / name)


def _environment(labs: Path) -> dict[str, str]:
    return os.environ | {"PIOLET_LAB_DIRECTORY": str(labs)}


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(Spec(nodes=4), id="host"),
        pytest.param(Spec(nodes=2, network=Network.NETNS), id="netns"),
        pytest.param(Spec(nodes=2, isolation=Isolation.CGROUP), id="cgroup"),
    ],
)
def test_down_leaves_nothing_even_of_running_jobs(
    spec: Spec, name: str, labs: Path, assert_no_trace: Callable[[Path], None], commands_on: Callable
) -> None:
    lab = up(Spec(name=name, nodes=spec.nodes, network=spec.network, isolation=spec.isolation), labs)
    run = commands_on(lab)
    # A process without parent, session or environment, as a daemon that a job has started.
    stray = "(setsid env -i sleep 1000 > /dev/null 2>&1 &); echo ready; sleep 1000"
    with subprocess.Popen(
        ["srun", "-N2", "sh", "-c", stray], env=run.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as srun:
        assert srun.stdout
        assert srun.stdout.readline() == b"ready\n"
        lab.down()
        assert srun.wait(20) != 0
    assert_no_trace(labs / name)


# Mounts, links and directories that only this lab sees: what is new in them is of its making.
ALONE = """
set -e
ip link set lo up
mount -t tmpfs none "$1"
for place in /var/lib /run /tmp /dev/shm /etc; do
  mkdir -p "$1/new$place" "$1/work$place"
  mount -t overlay none -o "lowerdir=$place,upperdir=$1/new$place,workdir=$1/work$place" $place
done
seen() { sort /proc/self/mounts; ls /sys/class/net; }
seen > "$1/before"
"$2" -m piolet lab up --name "$3" --nodes 2 --net netns > "$1/said"
"$2" -m piolet lab down --name "$3" > "$1/said"
seen | diff "$1/before" -
cd "$1/new"
find . -mindepth 2
"""


def test_the_machine_looks_as_before(labs: Path, assert_no_trace: Callable[[Path], None]) -> None:
    there, name = Path(tempfile.mkdtemp(dir=labs)), f"life-{secrets.token_hex(3)}"
    argv = ["unshare", "--mount", "--net", "sh", "-c", ALONE, "sh", there, sys.executable, name]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(done.stdout.split()) == {"./var/lib", "./dev/shm", "./var/lib/piolet", "./var/lib/piolet/lab"}
    assert_no_trace(labs_directory() / name)
    there.rmdir()


def test_up_again_changes_nothing_then_repairs_what_died(name: str, labs: Path, commands_on: Callable) -> None:
    spec = Spec(name=name, nodes=2)
    first = bring_up(spec, labs)
    assert first.new
    again = bring_up(spec, labs)
    assert (again.new, again.started) == (False, ())
    pids = status(first.lab).daemons
    for label in ("slurmctld", "slurmd@node2"):
        os.kill(pids[label], signal.SIGKILL)
    assert set(bring_up(spec, labs).started) == {"slurmctld", "slurmd@node2"}
    assert sorted(commands_on(first.lab)("srun", "-N2", "hostname").stdout.split()) == ["node1", "node2"]


def test_a_port_that_was_taken_meanwhile_is_refused(name: str, labs: Path) -> None:
    lab = up(Spec(name=name, nodes=1), labs)
    os.kill(status(lab).daemons["slurmctld"], signal.SIGKILL)
    _wait(lambda: "slurmctld" not in processes.daemons(lab.directory))
    with socket.create_server(("127.0.0.1", lab.place.slurmctld_port)):
        with pytest.raises(Refused, match="port of slurmctld was taken"):
            bring_up(lab.spec, labs)
        assert "munged" in processes.daemons(lab.directory)
    assert bring_up(lab.spec, labs).started == ("slurmctld",)


def test_other_parameters_are_refused(name: str, labs: Path) -> None:
    up(Spec(name=name, nodes=1), labs)
    with pytest.raises(Refused, match="exists with other parameters: nodes 1"):
        up(Spec(name=name, nodes=2), labs)
    assert status(open_lab(name, labs)).is_up


@pytest.mark.parametrize("network", list(Network))
def test_a_dead_slurmd_leaves_its_job_running(name: str, labs: Path, network: Network, commands_on: Callable) -> None:
    lab = up(Spec(name=name, nodes=2, network=network), labs)
    run = commands_on(lab)
    job = run("sbatch", "--parsable", "-w", "node2", "-o", "/dev/null", "--wrap", "sleep 1000").stdout.strip()
    _wait(lambda: _state(run, job) == "RUNNING")
    _wait(lambda: processes.step_daemons(lab.directory))
    os.kill(status(lab).daemons["slurmd@node2"], signal.SIGKILL)
    bring_up(lab.spec, labs)
    assert _state(run, job) == "RUNNING"
    assert run("srun", "-w", "node2", "hostname").stdout == "node2\n"


def _state(run: Callable, job: str) -> str:
    return run("squeue", "--noheader", "--format=%T", "--jobs", job).stdout.strip()


def _wait(ready: Callable[[], object], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("moment", range(6))
@pytest.mark.parametrize("then", ["up", "down"])
def test_a_killed_start_can_go_on_or_be_removed(
    moment: int, then: str, name: str, labs: Path, assert_no_trace: Callable[[Path], None]
) -> None:
    network = random.choice(list(Network))  # noqa: S311 - a moment, not a secret
    argv = [*PIOLET, "lab", "up", "--name", name, "--nodes", "3", "--net", network]
    with subprocess.Popen(argv, env=_environment(labs), stdout=subprocess.DEVNULL) as starting:
        time.sleep(0.25 + random.uniform(moment, moment + 1) * 0.1)  # noqa: S311 - same
        starting.kill()
    if then == "up":
        # A start that was killed before its first file was written is a new one: any parameters will do.
        lab = up(Spec(name=name, nodes=3, network=network), labs)
        assert status(lab).is_up
    down(name, labs)
    assert_no_trace(labs / name)


def test_a_killed_end_can_be_ended(name: str, labs: Path, assert_no_trace: Callable[[Path], None]) -> None:
    up(Spec(name=name, nodes=2), labs)
    with subprocess.Popen([*PIOLET, "lab", "down", "--name", name], env=_environment(labs)) as ending:
        time.sleep(random.uniform(0.25, 0.4))  # noqa: S311 - same
        ending.kill()
    down(name, labs)
    assert_no_trace(labs / name)


def test_an_interrupted_start_leaves_nothing(name: str, labs: Path, assert_no_trace: Callable[[Path], None]) -> None:
    argv = [*PIOLET, "lab", "up", "--name", name, "--nodes", "8"]
    with subprocess.Popen(argv, env=_environment(labs), stderr=subprocess.PIPE, text=True) as starting:
        _wait((labs / name / "run" / "slurmctld.pid").exists)
        starting.send_signal(signal.SIGINT)
        assert starting.wait(20) == 128 + signal.SIGINT
        assert starting.stderr
        assert starting.stderr.read().strip() == "piolet: interrupted"
    assert_no_trace(labs / name)


def test_a_full_disk_is_one_error_and_leaves_nothing(
    mount: Callable[[str], Path], name: str, assert_no_trace: Callable[[Path], None]
) -> None:
    small = mount("size=128k")
    with pytest.raises(PioletError, match="No space left on device"):
        up(Spec(name=name, nodes=2), small)
    assert_no_trace(small / name)
    assert list(small.iterdir()) == []


def test_a_read_only_directory_is_one_error(mount: Callable[[str], Path], name: str) -> None:
    with pytest.raises(StorageError, match="Read-only file system"):
        up(Spec(name=name, nodes=2), mount("ro"))


def test_a_daemon_that_cannot_start_is_named_with_its_log(
    name: str, labs: Path, assert_no_trace: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piolet.lab.daemons._PATH", "/nonexistent")
    with pytest.raises(PioletError, match=r"munged.*\n?.*No such file"):
        up(Spec(name=name, nodes=2), labs)
    assert_no_trace(labs / name)


def test_two_labs_run_side_by_side(name: str, labs: Path, commands_on: Callable) -> None:
    pair = [up(Spec(name=name, nodes=2), labs), up(Spec(name=f"{name}-b", nodes=2, network=Network.NETNS), labs)]
    try:
        for lab in pair:
            assert commands_on(lab)("srun", "-N2", "-l", "hostname").stdout.count("node") == 2
            assert _cluster(commands_on(lab)) == lab.name
        pair[0].down()
        assert commands_on(pair[1])("srun", "-N2", "ls", "/run/piolet-node").stdout.count("gpu") == 2
    finally:
        down(pair[1].name, labs)


def _cluster(run: Callable) -> str:
    lines = run("scontrol", "show", "config").stdout.splitlines()
    return next(line.split("=")[1].strip() for line in lines if line.startswith("ClusterName"))


def test_a_directory_that_users_cannot_enter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot enter") as raised:
        up(Spec(name="hidden"), tmp_path)
    assert "chmod o+x" in raised.value.remedy


def test_without_slurm_the_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("piolet.lab.machine._search_path", lambda: "/nonexistent")
    with pytest.raises(ToolMissing) as raised:
        up(Spec(name="none"), tmp_path)
    assert "apt-get install" in raised.value.remedy
    assert "slurmctld slurmd" in raised.value.remedy
    assert list(tmp_path.iterdir()) == []
