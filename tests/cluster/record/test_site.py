"""The node's service on a real Slurm: two jobs of two users share a node, and each gets its own GPUs by UUID."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from piolet.lab.gpus import read_inventory
from piolet.logbook.layout import Logbook
from piolet.logbook.reader import read
from piolet.logbook.records import read_job

PIOLET = Path(sys.executable).parent / "piolet"
DEADLINE_S = 150

pytestmark = pytest.mark.cluster


def until(holds: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline_s, f"never: {what}"
        time.sleep(0.2)


@pytest.fixture
def service(on_lab, root: Path) -> Iterator[subprocess.Popen[str]]:
    """The service of node1, outside of the node's own namespace but with its GPUs."""
    node = on_lab.lab.directory / "nodes/node1"
    environ = {
        "LD_LIBRARY_PATH": str(node / "lib"),
        "PIOLET_GPUSIM": str(node / "gpu"),
        "PIOLET_RECORD_KERNEL_LOG": str(node / "kmsg"),
        "PIOLET_ROOT": str(root / "{user}"),
    }
    process = on_lab.start(PIOLET, "record", "--site", "--node", "node1", env=environ)
    yield process
    process.kill()
    process.communicate()


def test_each_job_gets_what_it_held_under_its_own_user(
    on_lab, user: str, root: Path, service: subprocess.Popen[str]
) -> None:
    root.chmod(0o777)

    def submit(count: int, owner: str | None) -> str:
        program = f"srun --gres=gpu:{count} sleep 1000"
        options = ("-w", "node1", f"--gres=gpu:{count}", "-D", "/", "-o", "/dev/null", "--wrap", program)
        return on_lab("sbatch", "--parsable", *options, user=owner).stdout.strip()

    def book(job: str, owner: str) -> Logbook:
        return Logbook(root / owner / on_lab.lab.name / job)

    def sampled(job: str, owner: str) -> bool:
        return bool(list(book(job, owner).family("gpu").glob("*")) and list(book(job, owner).family("proc").glob("*")))

    jobs = {submit(1, user): user, submit(2, None): "root"}
    try:
        until(lambda: all(sampled(job, owner) for job, owner in jobs.items()), "both jobs have samples")
    finally:
        on_lab("scancel", *jobs)
    until(lambda: all(ended(book(job, owner)) for job, owner in jobs.items()), "both logbooks have an end")
    service.send_signal(signal.SIGTERM)
    said, _ = service.communicate(timeout=DEADLINE_S)
    assert service.returncode == 0, said
    seen = [uuids_of(book(job, owner)) for job, owner in jobs.items()]
    known = {gpu.uuid for gpu in read_inventory(on_lab.lab.directory / "nodes/node1/gpu")}
    assert [len(uuids) for uuids in seen] == [1, 2]
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] <= known
    told = [{gpu.uuid for _, gpu in read_job(book(job, owner).job).gpus} for job, owner in jobs.items()]
    assert told == seen, "job.json names the GPUs that were sampled"
    files = [path for job, owner in jobs.items() for path in book(job, owner).path.rglob("*")]
    owners = {pwd.getpwuid(path.stat().st_uid).pw_name for path in files if user in path.parts}
    assert owners == {user}
    assert json.loads(book(next(iter(jobs)), user).job.read_text())["user"] == user


def ended(book: Logbook) -> bool:
    return bool(json.loads(book.job.read_text())["program_ended_ns"])


def uuids_of(book: Logbook) -> set[str]:
    with read(book) as reader:
        assert reader.torn == ()
        assert reader.database.execute("SELECT count(*) > 0 FROM host").fetchall() == [(True,)]
        return {uuid for (uuid,) in reader.database.execute("SELECT DISTINCT uuid FROM gpu").fetchall()}


def test_the_service_says_what_it_needs(on_lab, user: str) -> None:
    told = on_lab(PIOLET, "record", "--site", user=user, check=False, env={"PIOLET_ROOT": "/nowhere"})
    assert (told.returncode, "runs as root" in told.stderr) == (2, True)
    assert os.geteuid() == 0
    told = on_lab(PIOLET, "record", "--site", check=False, env={"PIOLET_SITE_CONFIG": os.devnull})
    assert (told.returncode, "where the logbooks are" in told.stderr) == (2, True)
