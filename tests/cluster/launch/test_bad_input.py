"""What people get wrong, and what goes wrong around them: one clear error, and nothing is left behind."""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import leaking
import pytest

from piolet.lab import Spec, up

pytestmark = pytest.mark.cluster

PIOLET = Path(sys.executable).parent / "piolet"


def refused(run, status, *arguments, says, env=None):
    """Run, expect `status`, each of `says` on stderr, and no job."""
    done = run(*arguments, check=False, env=env)
    assert done.returncode == status, done.stderr
    for text in says:
        assert text in done.stderr
    assert done.stderr.startswith("piolet: ")
    assert "Traceback" not in done.stderr
    assert "  next:  " in done.stderr
    assert run.jobs() == []
    assert list(run.root.glob("*/*/job.json")) == []
    return done


def written(directory, name, text):
    path = directory / name
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_an_unknown_edf_key(piolet_run, root):
    edf = written(root, "wrong.toml", 'image = "demo.sqsh"\nmount = ["/scratch"]\n')
    refused(piolet_run, 2, "--env", edf, "--", "true", says=["mount", f"{edf}:2", 'did you mean "mounts"?'])


def test_a_secret_in_what_is_run(piolet_run, root):
    script = written(root, "job.sh", leaking.SCRIPT)
    done = refused(piolet_run, 2, "-N", "2", "--guard", "--", "bash", script, says=["secret/value", "job.sh:5"])
    assert not [secret for secret in leaking.SECRETS if secret in done.stderr + done.stdout]


def test_copies_of_what_is_not_there(piolet_run, root):
    refused(piolet_run, 2, "--stage", root / "absent", "--", "true", says=["nothing to stage", "absent"])


def test_a_component_of_no_job(piolet_run):
    refused(piolet_run, 2, "--het-group", "1", "--", "true", says=["no heterogeneous job"])


def test_an_environment_that_does_not_exist(piolet_run):
    refused(piolet_run, 2, "--env", "dmeo", "--", "true", says=["dmeo"])


def test_an_unknown_check(piolet_run, root):
    protocol = written(root, "wrong.yaml", "name: wrong\nevals:\n- name: x\n  type: gpu_cuont\n")
    refused(
        piolet_run, 2, "--vet", protocol, "--", "true", says=["gpu_cuont", "wrong.yaml:4", 'did you mean "gpu_count"?']
    )


def test_zero_checks(piolet_run, root):
    protocol = written(root, "empty.yaml", "name: empty\nevals: []\n")
    refused(piolet_run, 2, "--vet", protocol, "--", "true", says=["empty.yaml"])


def test_more_nodes_than_exist(piolet_run):
    refused(piolet_run, 2, "-N", "5", "--spares", "1", "--vet", "quick", "--", "true", says=["6 nodes", "has 5"])


def test_an_unknown_partition(piolet_run):
    refused(piolet_run, 2, "-p", "mian", "--", "true", says=["mian", 'did you mean "main"?'])


def test_no_program(piolet_run):
    refused(piolet_run, 2, "-N", "1", says=["no program"])


def test_no_slurm(piolet_run, root):
    programs = root / "bin"
    programs.mkdir(mode=0o755)
    for name in ("python3", "env"):
        (programs / name).symlink_to(shutil.which(name))
    refused(piolet_run, 3, "--", "true", says=["was not found", "--local"], env={"PATH": str(programs)})


def test_slurmctld_is_down(piolet_run, lab, root):
    text = Path(lab.environment()["SLURM_CONF"]).read_text()
    conf = written(root, "slurm.conf", re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=9", text) + "\nMessageTimeout=2\n")
    refused(piolet_run, 3, "--", "true", says=["slurm"], env={"SLURM_CONF": str(conf)})


def test_a_root_that_cannot_be_written(piolet_run):
    done = refused(piolet_run, 3, "--", "true", says=["cannot", "ermission denied"], env={"PIOLET_ROOT": "/root/none"})
    assert "/root/none" in done.stderr


def test_a_full_disk(piolet_run, root):
    small = root / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=1777", "tmpfs", small], check=True)
    try:
        with contextlib.suppress(OSError):
            (small / "filler").write_bytes(bytes(1 << 20))
        done = piolet_run("--env", "demo", "--", "true", check=False, env={"PIOLET_ROOT": str(small)})
        assert done.returncode == 3
        assert "No space left on device" in done.stderr
        assert piolet_run.jobs() == []
        assert [path.name for path in small.rglob("*") if path.is_file()] == ["filler"]
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_disk_that_fills_up_during_the_run_costs_the_report_and_not_the_program(piolet_run, commands_on, root):
    """The lab of this test begins after the mount, so that its nodes see the same small disk."""
    small = root / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=1777", "tmpfs", small], check=True)
    lab = up(Spec(name=f"full-{secrets.token_hex(4)}", nodes=2))
    try:
        run = replace(piolet_run, on_lab=commands_on(lab), root=small)
        fill = f"dd if=/dev/zero of={small}/filler bs=64k 2> {root}/dd; echo done"
        done = run("-N", "2", "--record", "--", "bash", "-c", fill, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "No space left on device" in (root / "dd").read_text()
        assert [path.name for path in small.rglob("*.partial")] == []
        assert run.jobs() == []
    finally:
        lab.down()
        subprocess.run(["umount", small], check=True)


def follower(run, *arguments):
    """Start `piolet run` as the user, in a session of its own, as at a terminal."""
    return subprocess.Popen(
        [PIOLET, "run", *arguments],
        cwd=Path(__file__).parents[3],
        env=run.on_lab.environment(run.user) | run.env,
        extra_groups=[],
        group=run.user,
        user=run.user,
        start_new_session=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(what, seconds=30):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def processes_with(marker):
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if marker.encode() in (process / "cmdline").read_bytes():
                    found.append(process.name)
    return found


def interrupted(run, process, marker):
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "cancel" in stderr
    assert run.jobs() == []
    wait_for(lambda: processes_with(marker) == [])


def test_ctrl_c_while_the_job_waits(piolet_run, on_lab):
    blocker = on_lab(
        "sbatch", "--parsable", "--exclusive", "--nodes=5", "--output=/dev/null", "--wrap=sleep 60"
    ).stdout.strip()
    try:
        process = follower(piolet_run, "-N", "2", "--", "sleep", "654.1")
        wait_for(lambda: len(piolet_run.jobs()) == 1)
        interrupted(piolet_run, process, "654.1")
    finally:
        on_lab("scancel", blocker)
        wait_for(lambda: not on_lab("squeue", "--noheader").stdout)


def test_ctrl_c_while_the_program_runs(piolet_run):
    process = follower(piolet_run, "-N", "2", "--record", "--env", "demo", "--", "sleep", "654.2")
    wait_for(lambda: len(processes_with("654.2")) >= 2)
    wait_for(lambda: [*piolet_run.root.glob("*/*/telemetry/host/*.parquet")])
    interrupted(piolet_run, process, "654.2")
    wait_for((piolet_run.logbook / "outcome.json").exists)
    assert piolet_run.read("outcome.json")["state"] == "CANCELLED"
    wait_for(lambda: processes_with(str(piolet_run.root)) == [])


@pytest.mark.parametrize("delay_s", [0.3, 0.5, 0.7, 1.0, 1.5, 2.2])
def test_ctrl_c_at_any_moment_leaves_no_job(piolet_run, delay_s):
    process = follower(
        piolet_run, "-N", "3", "--spares", "1", "--vet", "quick", "--record", "--env", "demo", "--", "sleep", "654.4"
    )
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert piolet_run.jobs() == []
    wait_for(lambda: processes_with("654.4") == [])
    wait_for(lambda: processes_with(str(piolet_run.root)) == [])
    assert not list(piolet_run.root.rglob("*.partial"))


@pytest.mark.slow
def test_a_job_out_of_time_says_so(piolet_run, on_lab):
    """Slurm counts limits in minutes, so an operator shortens this one while the program runs."""
    job = piolet_run("--detach", "-N", "2", "--time", "10", "--", "sleep", "654.3").stdout.strip()
    wait_for(lambda: len(processes_with("654.3")) >= 2)
    wait_for(lambda: time.time() > started(piolet_run) + 1)
    on_lab("scontrol", "update", f"JobId={job}", "TimeLimit=0:01")
    wait_for(lambda: [*piolet_run.root.glob(f"*/{job}/outcome.json")], seconds=120)
    outcome = piolet_run.read("outcome.json")
    assert (outcome["state"], outcome["domain"]) == ("TIMEOUT", "user")
    assert "--time" in outcome["next_action"]
    wait_for(lambda: piolet_run.jobs() == [])


def started(run):
    return run.read("job.json")["started_ns"] / 1e9


def test_the_exit_status_is_the_programs(piolet_run):
    done = piolet_run("-N", "2", "--", "bash", "-c", "exit $((SLURM_PROCID * 7))", check=False)
    assert done.returncode == 7
    outcome = piolet_run.read("outcome.json")
    assert (outcome["state"], outcome["first_failing_rank"], outcome["domain"]) == ("FAILED", 1, "workload")
    job = piolet_run.read("job.json")
    assert [len(held["gpus"]) for held in job["allocation"]] == [4, 4]
    assert job["simulated"] == ["nodes", "GPUs"]


def test_too_few_good_nodes_end_the_run_with_every_reason(piolet_run, faulty):
    faulty("node1:0", "--xid", "79")
    faulty("node4:2", "--ecc-uncorrected", "3")
    done = piolet_run(
        "-N", "4", "--spares", "1", "--vet", "ml-training", "--", "touch", str(piolet_run.root / "ran"), check=False
    )
    assert done.returncode == 3
    assert "node1" in done.stdout
    assert "node4" in done.stdout
    assert not (piolet_run.root / "ran").exists()
    assert piolet_run.read("outcome.json")["domain"] == "infrastructure"
    assert piolet_run.jobs() == []


def test_a_bad_batch_node_idles_and_the_others_run(piolet_run, faulty):
    faulty("node1:0", "--xid", "79")
    done = piolet_run("-N", "3", "--spares", "1", "--exclude", "node5", "--vet", "ml-training", "--", "hostname")
    assert sorted(line for line in done.stdout.splitlines() if re.fullmatch(r"node\d", line)) == [
        "node2",
        "node3",
        "node4",
    ]


def test_dry_run_prints_the_script_and_writes_nothing(piolet_run):
    done = piolet_run("-N", "2", "--env", "demo", "--dry-run", "--", "python", "train.py")
    assert "#SBATCH --nodes=2" in done.stdout
    assert list(piolet_run.root.iterdir()) == []


def test_detach_prints_the_job_id_and_the_job_goes_on(piolet_run):
    done = piolet_run("--detach", "--", "bash", "-c", "echo it ran")
    job = done.stdout.strip()
    assert job.isdigit()
    wait_for(lambda: list(piolet_run.root.glob(f"*/{job}/outcome.json")) != [])
    assert "it ran" in next(piolet_run.root.glob(f"*/{job}.log")).read_text()


def test_inside_an_allocation_it_conducts_there(piolet_run, on_lab, user):
    allocate = ("salloc", "--quiet", "--nodes=2", "--exclusive", "--gpus-per-node=4")
    run = (PIOLET, "run", "-N", "2", "--vet", "quick", "--", "hostname")
    done = on_lab(*allocate, *run, user=user, env=piolet_run.env, cwd=Path(__file__).parents[3])
    assert len({line for line in done.stdout.splitlines() if re.fullmatch(r"node\d", line)}) == 2
    assert piolet_run.read("outcome.json")["state"] == "COMPLETED"
