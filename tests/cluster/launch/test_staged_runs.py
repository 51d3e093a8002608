"""`piolet run --stage` on nodes: the copy is there, the container reads it, and it goes with the run."""

import os
import time

import pytest

pytestmark = pytest.mark.cluster

MEMORY = "/dev/shm"  # noqa: S108 - each node's own
READ = 'sha256sum < "$PIOLET_STAGED"; stat -c "%n %m" "$PIOLET_STAGED"'


def copies_left(on_lab):
    """What nodes have in memory."""
    return on_lab("srun", "-N", "2", "sh", "-c", f"ls -A {MEMORY} | grep -c staged-; true").stdout.split()


@pytest.fixture
def source(root):
    path = root / "staged-set.bin"
    path.write_bytes(os.urandom(3 << 20))
    path.chmod(0o644)
    return path


def test_the_copy_is_there_on_each_node_and_gone_after_the_run(piolet_run, on_lab, source):
    done = piolet_run("-N", "2", "--stage", source, "--", "sh", "-c", READ)

    digests = {line.split()[0] for line in done.stdout.splitlines() if line.endswith("  -")}
    assert digests == set(on_lab("sha256sum", str(source)).stdout.split()[:1])
    assert done.stdout.count(f"{MEMORY}/staged-set.bin {MEMORY}\n") == 2, "the file system of the node's memory"
    [staged] = piolet_run.read("job.json")["staged"]
    assert (staged["source"], staged["target"]) == (str(source), f"{MEMORY}/staged-set.bin")
    assert staged["size_bytes"] == 3 << 20
    assert "On every node" in (piolet_run.logbook / "report.html").read_text()
    assert copies_left(on_lab) == ["0", "0"]


def test_a_container_reads_the_copy_where_it_mounts_the_source(piolet_run, on_lab, source):
    edf = piolet_run.root / "staged.toml"
    edf.write_text(f'base_environment = "demo"\nmounts = ["{source}:/data/set.bin"]\n', encoding="utf-8")
    script = "stat -f -c %T /data/set.bin; cmp /data/set.bin $PIOLET_STAGED; echo >> /data/set.bin || echo kept"

    done = piolet_run("--stage", source, "--env", edf, "--", "sh", "-c", script)

    assert "tmpfs\nkept" in done.stdout, done.stdout
    assert source.stat().st_size == 3 << 20
    assert copies_left(on_lab) == ["0", "0"]


def test_it_goes_with_a_job_that_is_cancelled(piolet_run, on_lab, source):
    script = 'test -s "$PIOLET_STAGED" && scancel $SLURM_JOB_ID; sleep 60'

    done = piolet_run("-N", "2", "--stage", source, "--", "sh", "-c", script, check=False)

    assert done.returncode != 0
    assert piolet_run.read("outcome.json")["state"] == "CANCELLED"
    while on_lab("squeue", "--noheader").stdout:
        time.sleep(0.1)
    assert copies_left(on_lab) == ["0", "0"]


def test_a_place_that_is_taken_ends_the_run_before_the_program(piolet_run, source):
    done = piolet_run("-N", "2", "--stage", f"{source}:/var/tmp/../../proc/x", "--", "touch", source, check=False)

    assert (done.returncode, piolet_run.read("outcome.json")["domain"]) == (2, "user")
    assert "nothing was written" in done.stdout + done.stderr
