"""Each fault on a real cluster ends in the right verdict, within its time, and leaves the good nodes ready."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from piolet.lab import Lab, Spec, status, up
from piolet.lab.gpus import clear, inject, parse_faults

pytestmark = pytest.mark.cluster

PIOLET = (sys.executable, "-m", "piolet")
CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture
def vet(on_lab: Callable) -> Callable:
    """Vet 4 nodes in an allocation of their own; gives the verdict and the exit status."""

    def run(
        protocol: str = "ml-training", *options: str, nodes: str = "node[1-4]", gpus: int = 4, user: str | None = None
    ):
        allocate = ("salloc", "--quiet", "--no-kill", f"--nodelist={nodes}", f"--gpus-per-node={gpus}")
        done = on_lab(*allocate, *PIOLET, "vet", "run", "--protocol", protocol, "--format", "json", *options,
                      user=user, check=False)  # fmt: skip
        assert done.stdout, done.stderr
        return json.loads(done.stdout), done.returncode

    return run


@pytest.fixture
def fault(lab: Lab) -> Iterator[Callable]:
    """Inject a fault into GPU 1 of a node; cleared after the test."""
    touched = []

    def _inject(node: str, **values: object) -> None:
        directory = lab.node_directory(node) / "gpu"
        touched.append(directory)
        for each in parse_faults(values):
            inject(directory, 1, each)

    yield _inject
    for directory in touched:
        clear(directory, 1)


def reasons(verdict: dict) -> dict[str, str]:
    return {each["node"]: each["reason"] for each in verdict["refused"]}


def test_healthy_nodes_are_ready_and_tell_their_gpus(vet, user):
    verdict, status_code = vet(user=user)

    assert status_code == 0
    assert verdict["ready"] == "node[1-4]"
    assert len(verdict["checks"]) == 32
    assert {node: len(gpus) for node, gpus in verdict["gpus"].items()} == dict.fromkeys(
        ("node1", "node2", "node3", "node4"), 4
    )
    assert all(gpu["simulated"] and gpu["uuid"].startswith("GPU-") for gpus in verdict["gpus"].values() for gpu in gpus)


FAULTS = [
    ({"xid": 79}, {"GPU count", "GPU Xid"}, "Xid 79 (GPU has fallen off the bus)"),
    ({"xid": 119}, {"GPU Xid"}, "Xid 119 (GSP does not answer)"),
    ({"ecc_uncorrected": 3}, {"GPU ECC", "GPU Xid"}, "GPU 1: 3 uncorrected memory errors"),
    ({"remap": "failed"}, {"GPU ECC"}, "GPU 1: remapping a row failed"),
    ({"remap": "pending"}, {"GPU ECC"}, "GPU 1: a row waits for remapping"),
    ({"nvlink_down": 4}, {"GPU Xid", "NVLink"}, "GPU 1: 17 of 18 NVLinks are active (down: 4)"),
    ({"nvlink_errors": 5}, {"NVLink"}, "GPU 1: link 0 has counted 5 replay errors"),
    ({"pcie_width": 4}, {"PCIe"}, "GPU 1: 4 of 16 PCIe lanes"),
    ({"throttle": "power"}, {"GPU throttle"}, "GPU 1 is slowed down: hw_slowdown, hw_power_brake"),
    ({"leftover_memory": "20GiB"}, {"GPU memory"}, "GPU 1: 25% of its memory is in use"),
    ({"leftover_memory": "2GiB"}, {"GPU memory"}, "GPU 1: left-over processes"),
]


@pytest.mark.parametrize(("values", "failing", "reason"), FAULTS, ids=[str(values) for values, _, _ in FAULTS])
def test_each_fault_is_found_by_the_right_check_with_the_right_reason(vet, fault, values, failing, reason):
    fault("node2", **values)

    verdict, status_code = vet()

    assert status_code == 1
    assert verdict["ready"] == "node[1,3-4]"
    assert {each["check"] for each in verdict["checks"] if each["status"] == "fail"} == failing
    assert reason in reasons(verdict)["node2"]
    assert {each["node"] for each in verdict["checks"] if each["status"] != "pass"} == {"node2"}


@pytest.mark.parametrize("values", [{"xid": 31}, {"xid": 63}, {"ecc_corrected": 100}])
def test_what_is_no_evidence_refuses_nobody(vet, fault, values):
    fault("node2", **values)

    verdict, status_code = vet()

    assert (status_code, verdict["refused"]) == (0, [])


def test_a_fault_on_a_gpu_of_somebody_else_is_not_held_against_the_node(vet, fault):
    fault("node2", ecc_uncorrected=3)

    verdict, _ = vet(gpus=1)

    assert verdict["ready"] == "node[1-4]"
    assert all([gpu["index"] for gpu in gpus] == [0] for gpus in verdict["gpus"].values())


def test_a_vetnode_file_runs_unchanged_and_finds_a_hot_gpu(vet, fault, tmp_path):
    tmp_path.chmod(0o755)
    protocol = tmp_path / "vetnode.yaml"
    protocol.write_text(
        'name: "x"\nevals:\n- name: "Check GPU"\n  type: vetnode.evaluations.gpu_eval.GPUEval\n'
        "  max_temp: 60\n  max_used_memory: 0.2\n",
        encoding="utf-8",
    )
    fault("node3", temp=85)

    verdict, status_code = vet(str(protocol))

    assert status_code == 1
    assert list(reasons(verdict)) == ["node3"]
    assert "85 °C" in reasons(verdict)["node3"]


def test_a_gpu_driver_that_is_gone_is_not_healthy(vet, lab):
    library = lab.node_directory("node4") / "lib" / "libnvidia-ml.so.1"
    away = library.with_suffix(".away")
    library.rename(away)
    try:
        verdict, status_code = vet()
    finally:
        away.rename(library)

    assert (status_code, verdict["ready"]) == (1, "node[1-3]")
    assert "0 of 4 GPUs answer" in reasons(verdict)["node4"]


def test_the_node_with_another_driver_is_named(vet, lab, tmp_path):
    tmp_path.chmod(0o755)
    protocol = tmp_path / "uniform.yaml"
    protocol.write_text("evals:\n- type: uniform\n", encoding="utf-8")
    inventory = lab.node_directory("node3") / "gpu" / "inventory"
    before = inventory.read_text(encoding="utf-8")
    inventory.write_text(before.replace("driver 550.54.15-sim", "driver 535.00.01-sim"), encoding="utf-8")
    try:
        verdict, status_code = vet(str(protocol))
    finally:
        inventory.write_text(before, encoding="utf-8")

    assert (status_code, verdict["ready"]) == (1, "node[1-2,4]")
    assert reasons(verdict) == {"node3": "uniform: driver 535.00.01-sim here, driver 550.54.15-sim on 3 of 4 nodes"}


def test_a_hung_mount_is_named_within_its_time(vet, lab, tmp_path):
    tmp_path.chmod(0o755)
    mount = Path("/mnt")
    (tmp_path / "content").mkdir()
    image = tmp_path / "image.sqfs"
    subprocess.run(
        ["mksquashfs", tmp_path / "content", image, "-quiet", "-no-progress"], check=True, capture_output=True
    )
    protocol = tmp_path / "mounts.yaml"
    protocol.write_text(f"evals:\n- {{type: mounts, paths: [{mount}], answer_s: 1}}\n", encoding="utf-8")
    servers = {node: _mounted(lab, node, image, mount) for node in ("node1", "node2")}
    try:
        servers["node2"].send_signal(signal.SIGSTOP)
        started = time.monotonic()
        verdict, status_code = vet(str(protocol), nodes="node[1-3]")
        assert time.monotonic() - started < 30  # not the time-out of the step
    finally:
        for server in servers.values():
            server.send_signal(signal.SIGCONT)
            server.terminate()
            server.wait(10)

    assert status_code == 1
    assert verdict["ready"] == "node1"
    assert reasons(verdict) == {
        "node2": "mounts: /mnt: no answer within 1 s",
        "node3": "mounts: /mnt: nothing is mounted there",
    }


ENVIRONMENT = """
image = "demo.sqsh"
mounts = ["/run/piolet-node:/run/piolet-node:ro"]
workdir = "/"
[require]
paths = ["/run/piolet-node/flag"]
"""
MACHINE_CHECK = "3,9999,{},-;mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 5: be00000000800400\n"


def test_a_machine_check_a_service_and_a_container(vet, lab, on_lab, tmp_path):
    """One node has logged a machine check, and another lacks what the hook of an environment would bring."""
    tmp_path.chmod(0o755)
    (tmp_path / "edf.toml").write_text(ENVIRONMENT, encoding="utf-8")
    images = {"PIOLET_ENV_IMAGES": str(CHECKOUT / ".images")}
    on_lab(*PIOLET, "env", "compile", tmp_path / "edf.toml", "--output", tmp_path / "edf.plan", env=images)
    protocol = tmp_path / "machine.yaml"
    protocol.write_text(
        "evals:\n- {type: services, programs: [slurmd]}\n- {type: hardware_errors}\n"
        f"- {{type: container, plan: {tmp_path}/edf.plan}}\n",
        encoding="utf-8",
    )
    log = lab.node_directory("node2") / "kmsg"
    before, flags = log.read_bytes(), [lab.node_directory(node) / "flag" for node in ("node1", "node2")]
    for flag in flags:
        flag.touch()
    with log.open("a") as file:
        file.write(MACHINE_CHECK.format(round(time.monotonic() * 1e6)))
    try:
        verdict, status_code = vet(str(protocol), nodes="node[1-3]")
    finally:
        log.write_bytes(before)
        for flag in flags:
            flag.unlink()

    assert (status_code, verdict["ready"]) == (1, "node1"), verdict["checks"]
    assert reasons(verdict) == {
        "node2": "hardware_errors: bank 5: 1 uncorrected errors (kernel log)",
        "node3": "container: require: environment requires /run/piolet-node/flag, which the container does not have",
    }


def test_a_disk_that_is_full_or_read_only_is_named(vet, lab, tmp_path):
    tmp_path.chmod(0o755)
    protocol = tmp_path / "disk.yaml"
    protocol.write_text("evals:\n- {type: disk, paths: [/mnt]}\n", encoding="utf-8")
    _in_node(lab, "node1", "mount -t tmpfs -o size=1m tmpfs /mnt")
    _in_node(lab, "node2", "mount -t tmpfs -o size=1m tmpfs /mnt && head -c 950000 /dev/zero > /mnt/filler")
    _in_node(lab, "node3", "mount -t tmpfs -o size=1m,ro tmpfs /mnt")
    try:
        verdict, status_code = vet(str(protocol), nodes="node[1-3]")
    finally:
        for node in ("node1", "node2", "node3"):
            _in_node(lab, node, "umount /mnt")

    assert (status_code, verdict["ready"]) == (1, "node1")
    assert reasons(verdict) == {
        "node2": "disk: /mnt: 91% of its space is in use",
        "node3": "disk: /mnt: mounted read-only",
    }


def _in_node(lab: Lab, node: str, script: str) -> None:
    """Run a shell script inside the node's mount namespace."""
    target = f"--target={status(lab).daemons[f'slurmd@{node}']}"
    subprocess.run(["nsenter", "--mount", target, "sh", "-c", script], check=True)


def _mounted(lab: Lab, node: str, image: Path, mount: Path) -> subprocess.Popen:
    """Mount `image` inside the node's mount namespace; ending the server unmounts it."""
    inside = ("nsenter", "--mount", f"--target={status(lab).daemons[f'slurmd@{node}']}")
    server = subprocess.Popen([*inside, "squashfuse", "-f", "-o", "allow_other", image, mount])
    deadline = time.monotonic() + 10
    while subprocess.run([*inside, "mountpoint", "--quiet", mount], check=False).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return server


@pytest.fixture
def own_lab() -> Iterator[Lab]:
    """A lab whose nodes the test may break."""
    lab = up(Spec(name=f"vet-{secrets.token_hex(4)}", nodes=4))
    yield lab
    lab.down()


def _vetted_after(run: Callable, *breaking: object) -> tuple[dict, int, float]:
    """Hold 4 nodes, break one by a command, and vet them; gives verdict, exit status and seconds."""
    script = (
        "import subprocess, sys, time; subprocess.run(sys.argv[2:], check=True); time.sleep(0.3);"
        "start = time.time(); done = subprocess.run([sys.executable, *'-m piolet vet run --format json'.split()],"
        "stdout=subprocess.PIPE, text=True); print(done.stdout, done.returncode, time.time() - start, sep='\\0')"
    )
    hold = ("salloc", "--quiet", "--no-kill", "-N4", "--gpus-per-node=4")
    done = run(*hold, sys.executable, "-c", script, "--", *map(str, breaking))
    verdict, status_code, took_s = done.stdout.split("\0")
    return json.loads(verdict), int(status_code), float(took_s)


def test_a_node_whose_slurmd_is_killed_is_unknown_and_costs_the_others_nothing(own_lab, commands_on):
    pid = status(own_lab).daemons["slurmd@node2"]

    verdict, status_code, took_s = _vetted_after(commands_on(own_lab), "kill", "-9", pid)

    assert status_code == 3
    assert (verdict["ready"], verdict["unknown"]) == ("node[1,3-4]", "node2")
    assert reasons(verdict) == {"node2": "no answer: never began"}  # given up before Slurm, which tries for 10 s
    assert took_s < 60  # the time of the stage


def test_a_node_that_slurm_has_set_down_does_not_fail_the_step_for_the_others(own_lab, commands_on):
    down = ("scontrol", "update", "NodeName=node3", "State=DOWN", "Reason=test")

    verdict, status_code, took_s = _vetted_after(commands_on(own_lab), *down)

    assert status_code == 3
    assert (verdict["ready"], verdict["unknown"]) == ("node[1-2,4]", "node3")
    assert reasons(verdict) == {"node3": "no answer: the job has lost this node"}
    assert took_s < 60  # the time of the stage


def test_a_check_that_hangs_or_dies_is_unknown_and_the_rest_is_judged(on_lab, tmp_path):
    """A check of a third party, given to the nodes by its reference."""
    tmp_path.chmod(0o755)
    (tmp_path / "odd.py").write_text(
        "import time, os\n"
        "from dataclasses import dataclass\n"
        "from piolet.vet.check import Check\n"
        "@dataclass(frozen=True)\n"
        "class P: pass\n"
        "def hang(p, c): print('noise', flush=True); time.sleep(60)\n"
        "def die(p, c): os._exit(3)\n"
        "def fail(p, c): raise OSError(5, 'the tool said no')\n"
        "HANG, DIE, FAIL = (Check('odd', 1, '', '', P, f, None) for f in (hang, die, fail))\n",
        encoding="utf-8",
    )
    check = {"type": "odd", "parameters": {}, "timeout_s": 1.0, "requirements": []}
    checks = [check | {"name": name, "reference": f"odd:{name.upper()}"} for name in ("hang", "die", "fail", "gone")]
    good = {"name": "good", "type": "mounts", "reference": "piolet.vet.checks.mounts:CHECK"}
    lacking = good | {"name": "lacking", "requirements": ["no-such-distribution>=2"]}
    text = json.dumps({"name": "x", "checks": [*checks, good, lacking]})

    done = on_lab("srun", sys.executable, "-m", "piolet.vet", text, env={"PYTHONPATH": str(tmp_path)})

    found = json.loads(done.stdout.splitlines()[-1])
    said = {each["check"]: (each["status"], each["reason"]) for each in found["checks"]}
    assert found["ready"] is False
    assert said["good"][0] == "pass"
    assert said["hang"] == ("unknown", "the check did not finish: no answer within 1 s")
    assert said["die"] == ("unknown", "the check did not finish: ended without an answer")
    assert said["fail"] == ("unknown", "the check did not finish: OSError: [Errno 5] the tool said no")
    assert "AttributeError" in said["gone"][1]
    assert said["lacking"] == ("unknown", "it requires no-such-distribution>=2, not installed here")


def test_an_answer_that_does_not_come_in_time_is_unknown_and_nothing_is_left(on_lab, vet):
    verdict, status_code = vet("quick", "--timeout", "0.05")

    assert status_code == 3
    assert verdict["unknown"] == "node[1-4]"
    assert all("no answer" in reason for reason in reasons(verdict).values())
    assert on_lab("squeue", "--noheader", "--steps").stdout == ""


def test_all_components_of_a_heterogeneous_job_are_vetted(on_lab, fault):
    fault("node3", ecc_uncorrected=3)
    components = ("--nodelist=node1", "--gpus-per-node=4", ":", "--nodelist=node[2-3]", "--gpus-per-node=4")
    command = (*PIOLET, "vet", "run", "--protocol", "ml-training", "--format", "json")

    done = on_lab("salloc", "--quiet", *components, *command, check=False)

    verdict = json.loads(done.stdout)
    assert (done.returncode, verdict["nodes"], verdict["ready"]) == (1, "node[1-3]", "node[1-2]")
    assert list(reasons(verdict)) == ["node3"]


def test_nodes_that_are_shared_are_vetted_by_each_job_for_its_own_gpus(on_lab, fault):
    fault("node2", ecc_uncorrected=3)
    hold = ("salloc", "--quiet", "-N2", "--nodelist=node[1-2]", "--gpus-per-node=1", "--ntasks-per-node=1")
    command = (*PIOLET, "vet", "run", "--protocol", "ml-training", "--format", "json")

    found = [json.loads(on_lab(*hold, *command, check=False).stdout) for _ in range(2)]

    assert [verdict["ready"] for verdict in found] == ["node[1-2]", "node[1-2]"], "GPU 1 is another job's"


def test_outside_of_slurm_it_says_what_to_do(on_lab):
    done = on_lab(*PIOLET, "vet", "run", check=False)

    assert done.returncode == 2
    assert "--local" in done.stderr
    assert done.stdout == ""
    assert not any(name.startswith("SLURM_") for name in os.environ)


def test_a_node_three_times_as_slow_as_its_peers_is_refused_in_the_stage_that_measures(vet, fault, tmp_path):
    """The speed comes from a script, so that the lab's shared processors do not decide the test."""
    tmp_path.chmod(0o755)
    script = tmp_path / "speed"
    script.write_text(
        '#!/bin/sh\nspeed=99\n[ "$SLURMD_NODENAME" = node3 ] && speed=33\n'
        """printf '{"status": "pass", "reason": "measured", "value": %d, "unit": "GB/s"}' "$speed"\n""",
        encoding="utf-8",
    )
    script.chmod(0o755)
    protocol = tmp_path / "speed.yaml"
    protocol.write_text(
        f"include: quick\nevals:\n- {{name: speed, type: script, stage: speed, command: [{script}],"
        " criteria: {better: higher, peers: {mad: 5}}}\n",
        encoding="utf-8",
    )
    fault("node1", xid=79)

    verdict, status_code = vet(str(protocol), nodes="node[1-5]")

    assert (status_code, verdict["ready"]) == (1, "node[2,4-5]")
    assert "33 GB/s: the median of 4 nodes is 99" in reasons(verdict)["node3"]
    measured = [each["node"] for each in verdict["checks"] if each["stage"] == "speed"]
    assert sorted(measured) == ["node2", "node3", "node4", "node5"], "node1 was refused in the stage before"
    assert vet(str(protocol), "--max-unready", "2", nodes="node[1-5]")[1] == 0
