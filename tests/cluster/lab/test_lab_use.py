"""What a lab is for: users' commands, addresses, accounting, isolation and GPUs that fail."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from piolet.core.config import load
from piolet.lab import Isolation, Lab, Network, Spec, down, list_labs, open_lab, up

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("machine")]

PIOLET = [sys.executable, "-m", "piolet", "lab"]
NVML = """
import pynvml as nvml
nvml.nvmlInit()
for index in range(nvml.nvmlDeviceGetCount()):
    try:
        nvml.nvmlDeviceGetTemperature(nvml.nvmlDeviceGetHandleByIndex(index), nvml.NVML_TEMPERATURE_GPU)
        print(index, "well")
    except nvml.NVMLError as error:
        print(index, error)
"""


@pytest.fixture
def make_lab(labs: Path) -> Iterator[Callable[..., Lab]]:
    made: list[Lab] = []

    def make(**parameters: object) -> Lab:
        made.append(up(Spec(name=f"use-{secrets.token_hex(3)}", nodes=2, **parameters), labs))
        return made[-1]

    yield make
    for lab in made:
        down(lab.name, labs)


def _lab(*argv: object, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PIOLET, *map(str, argv)], check=False, capture_output=True, input=stdin, text=True, timeout=60, cwd="/"
    )


def test_a_step_sees_its_node_as_a_machine(on_lab: Callable, lab: Lab, user: str) -> None:
    script = "hostname; getent hosts node3; cat /run/piolet-node/gpu/inventory; df --output=fstype /dev/shm | tail -1"
    said = on_lab("srun", "-w", "node2", "sh", "-c", script, user=user).stdout.splitlines()
    assert said[0] == "node2"
    assert said[1].split()[0] == lab.address("node3")
    assert "node node2" in said
    assert said[-1] == "tmpfs"


def test_dev_shm_is_each_nodes_own(on_lab: Callable) -> None:
    on_lab("srun", "-w", "node1", "touch", "/dev/shm/only-on-node1")  # noqa: S108 - the point of the test
    assert on_lab("srun", "-w", "node2", "ls", "/dev/shm").stdout == ""  # noqa: S108 - the same
    on_lab("srun", "-w", "node1", "rm", "/dev/shm/only-on-node1")  # noqa: S108 - the same


def test_an_ordinary_user_runs_steps_and_batch_jobs(on_lab: Callable, user: str) -> None:
    assert on_lab("srun", "-N5", "id", "--name", "--user", user=user).stdout.split() == [user] * 5
    home = pwd.getpwnam(user).pw_dir
    argv = ["sbatch", "--parsable", "-N2", "-o", f"{home}/out", "--wrap", "srun hostname"]
    job = on_lab(*argv, user=user, cwd=Path(home)).stdout.strip()
    while on_lab("squeue", "--noheader", "--states=PENDING,RUNNING,COMPLETING", f"--jobs={job}").stdout:
        time.sleep(0.05)
    assert sorted(Path(home, "out").read_text().split()) == ["node1", "node2"]


def test_the_environment_sets_piolet_up_for_the_lab(on_lab: Callable, lab: Lab) -> None:
    said = on_lab("srun", "-N1", "piolet", "config", "show", "--format", "json").stdout
    settings = json.loads(said)
    assert settings["cluster"]["value"] == lab.name
    assert settings["record.kernel_log"]["value"] == "/run/piolet-node/kmsg"
    assert Path(settings["lab.directory"]["value"]) == load().settings.lab.directory


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        (["--xid", "79"], "GPU is lost"),
        (["--temp", "91"], "well"),
    ],
)
def test_faults_show_in_the_real_nvml_binding_of_a_step(
    on_lab: Callable, lab: Lab, user: str, options: list[str], seen: str
) -> None:
    done = _lab("gpu", "--name", lab.name, "node2:1", *options)
    assert done.returncode == 0, done.stderr
    try:
        nodes = [
            on_lab("srun", "-w", node, sys.executable, "-c", NVML, user=user).stdout.splitlines()
            for node in ("node1", "node2")
        ]
        assert nodes[0] == [f"{index} well" for index in range(4)]
        assert nodes[1][0] == "0 well"
        assert seen in nodes[1][1]
        kernel_log = on_lab("srun", "-w", "node2", "cat", "/run/piolet-node/kmsg", user=user).stdout
        assert ("Xid (PCI:0000:43:00): 79" in kernel_log) == ("--xid" in options)
    finally:
        assert _lab("gpu", "--name", lab.name, "node2:1", "--clear").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["node9:1", "--xid", "79"], 'no node "node9"'),
        (["node1:4", "--xid", "79"], "no GPU 4"),
        (["node1", "--xid", "79"], "is not a GPU"),
        (["node1:0"], "no fault given"),
        (["node1:0", "--slow", "7"], "--slow cannot be"),
    ],
)
def test_a_fault_that_cannot_be_is_one_error(lab: Lab, arguments: list[str], says: str) -> None:
    done = _lab("gpu", "--name", lab.name, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "next:" in done.stderr


def test_exec_ends_as_the_command_and_keeps_its_words(lab: Lab) -> None:
    done = _lab(
        "exec",
        "--name",
        lab.name,
        "--",
        "sh",
        "-c",
        'printf "%s|" "$@"; cat; exit 7',
        "sh",
        "a b",
        "--name",
        "*",
        stdin="in",
    )
    assert (done.returncode, done.stdout) == (7, "a b|--name|*|in")


def test_exec_as_a_user_on_the_lab(lab: Lab, user: str) -> None:
    done = _lab(
        "exec", "--name", lab.name, "--user", user, "--", "srun", "-w", "node3", "sh", "-c", "id -un; echo $HOME"
    )
    assert done.stdout.split() == [user, pwd.getpwnam(user).pw_dir], done.stderr
    assert "no user" in _lab("exec", "--name", lab.name, "--user", "nobody-at-all", "--", "true").stderr


def test_exec_of_a_missing_command_is_one_error(lab: Lab) -> None:
    done = _lab("exec", "--name", lab.name, "--", "no-such-command")
    assert (done.returncode, done.stderr.splitlines()[0]) == (3, "piolet: no-such-command was not found")


def test_a_shell_has_the_labs_slurm(lab: Lab) -> None:
    done = _lab("shell", "--name", lab.name, stdin="echo ${SLURM_CONF}\nexit 5\n")
    assert done.returncode == 5
    assert str(lab.slurm_conf) in done.stdout


def test_status_tells_states_reasons_and_daemons(lab: Lab, on_lab: Callable) -> None:
    on_lab("scontrol", "update", "nodename=node4", "state=drain", "reason=a | bad fan")
    try:
        found = json.loads(_lab("status", "--name", lab.name, "--format", "json").stdout)
        assert found["up"] is True
        assert found["simulated"] is True
        assert found["nodes"][3] == {"node": "node4", "state": "drained", "reason": "a | bad fan"}
        assert all(Path(f"/proc/{pid}").exists() for pid in found["daemons"].values())
        assert set(found["daemons"]) == {"munged", "slurmctld", *(f"slurmd@node{n}" for n in range(1, 6))}
        assert "bad fan" in _lab("status", "--name", lab.name).stdout
    finally:
        on_lab("scontrol", "update", "nodename=node4", "state=resume")


def test_status_of_a_sick_lab_says_so_and_exits_with_1(make_lab: Callable[..., Lab], labs: Path) -> None:
    lab = make_lab()
    found = json.loads(_status(lab).stdout)
    os.kill(found["daemons"]["slurmctld"], 9)
    done = _status(lab)
    assert done.returncode == 1
    sick = json.loads(done.stdout)
    assert sick["daemons"]["slurmctld"] is None
    assert sick["nodes"][0] == {"node": "node1", "state": "unknown", "reason": "slurmctld does not answer"}
    assert [lab.name for lab in list_labs(labs)] == [lab.name]


def _status(lab: Lab) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PIOLET, "status", "--name", lab.name, "--format", "json"],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PIOLET_LAB_DIRECTORY": str(lab.directory.parent)},
    )


def test_an_ordinary_user_cannot_change_a_lab_but_use_it(lab: Lab, on_lab: Callable, user: str) -> None:
    done = on_lab(*PIOLET, "down", "--name", lab.name, user=user, check=False)
    assert done.returncode == 2
    assert "needs root" in done.stderr
    seen = json.loads(on_lab(*PIOLET, "status", "--name", lab.name, "--format", "json", user=user).stdout)
    assert (seen["up"], seen["daemons"], len(seen["nodes"])) == (True, {}, 5)
    done = on_lab(*PIOLET, "exec", "--name", lab.name, "--", "srun", "hostname", user=user)
    assert done.stdout.startswith("node")


def test_nodes_of_a_netns_lab_reach_one_another_by_name(make_lab: Callable[..., Lab], commands_on: Callable) -> None:
    lab = make_lab(network=Network.NETNS)
    run = commands_on(lab)
    serve = "import socket; s = socket.create_server(('node1', 7000)); c, a = s.accept(); c.sendall(a[0].encode())"
    call = """
import socket, time
for _ in range(100):
    try:
        print(socket.create_connection(("node1", 7000)).recv(99).decode())
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
"""
    steps = f"""srun -w node1 {sys.executable} -c "{serve}" & srun -w node2 {sys.executable} -c '{call}'; wait"""
    assert run("sh", "-c", steps).stdout == f"{lab.address('node2')}\n"
    links = run("srun", "-w", "node2", "ip", "-brief", "address").stdout
    assert f"{lab.address('node2')}/24" in links


def test_nodes_keep_their_library_when_the_machine_replaces_its_cache(
    make_lab: Callable[..., Lab], commands_on: Callable
) -> None:
    run = commands_on(make_lab())
    assert run("srun", "-w", "node1", "umount", "/etc/ld.so.cache").stdout == ""  # what `ldconfig` outside amounts to
    said = run("srun", "-w", "node1", sys.executable, "-c", NVML).stdout.splitlines()
    assert said == [f"{index} well" for index in range(4)]


def test_accounting_answers_sacct(make_lab: Callable[..., Lab], commands_on: Callable, user: str) -> None:
    lab = make_lab(accounting=True)
    run = commands_on(lab)

    def told(job_name: str) -> list[str]:
        """Run a job, and return what accounting says of it."""
        run("srun", "-N2", "--gres=gpu:3", f"--job-name={job_name}", "true", user=user)
        asked = ["sacct", "-XnP", "--allusers", f"--name={job_name}", "--format=user,state,nnodes,alloctres"]
        for _ in range(200):
            rows = run(*asked).stdout.split("|")
            if "COMPLETED" in rows:
                break
            run("sleep", "0.2")
        return rows

    user_name, state, nodes, resources = told("before")
    assert (user_name, state, nodes) == (user, "COMPLETED", "2")
    assert "gres/gpu=6" in resources
    os.kill(next(iter(_pids(lab, "mariadbd"))), 9)
    os.kill(next(iter(_pids(lab, "slurmdbd"))), 9)
    up(lab.spec, lab.directory.parent)
    assert told("after")[1] == "COMPLETED"


def _pids(lab: Lab, label: str) -> list[int]:
    return [json.loads(_status(lab).stdout)["daemons"][label]]


def test_cgroups_confine_a_job_to_its_devices_and_memory(
    make_lab: Callable[..., Lab], commands_on: Callable, user: str
) -> None:
    lab = make_lab(isolation=Isolation.CGROUP)
    run = commands_on(lab)
    # Without a driver an allowed device is "No such device or address"; a forbidden one is not even that.
    script = "for gpu in 0 1 2 3; do head -c1 $0/nvidia$gpu; done 2>&1; cat /sys/fs/cgroup/memory$(grep -o '/slurm.*job_[0-9]*' /proc/self/cgroup | head -1)/memory.limit_in_bytes"  # noqa: E501 - one script
    said = run("srun", "-w", "node2", "--gres=gpu:2", "--mem=300", "sh", "-c", script, lab.directory / "dev", user=user)
    lines = said.stdout.splitlines()
    assert [line.rpartition(": ")[2] for line in lines[:4]] == ["No such device or address"] * 2 + [
        "Operation not permitted"
    ] * 2
    assert int(lines[4]) == 300 << 20


def test_a_lab_that_is_not_there_is_one_error(lab: Lab) -> None:
    for command in (["status"], ["exec", "--", "true"], ["gpu", "node1:0", "--hang"]):
        done = _lab(command[0], "--name", "nowhere", *command[1:])
        assert done.returncode == 2
        assert 'no lab "nowhere"' in done.stderr
    with pytest.raises(Exception, match="no lab"):
        open_lab("nowhere", lab.directory)
