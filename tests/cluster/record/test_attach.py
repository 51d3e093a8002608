"""`piolet record --attach` on jobs of an ordinary user."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from piolet.logbook.layout import Logbook
from piolet.logbook.reader import read, rereading

PIOLET = Path(sys.executable).parent / "piolet"
DEADLINE_S = 120

pytestmark = pytest.mark.cluster


@pytest.fixture
def job(on_lab, user: str) -> Iterator[str]:
    """A job of two nodes with two GPUs each, whose program knows nothing of a recorder."""
    program = "srun -N2 --gres=gpu:2 sleep 1000"
    argv = ("sbatch", "--parsable", "-N2", "--gres=gpu:2", "-o", "/dev/null", "-D", "/", "--wrap", program)
    job = on_lab(*argv, user=user).stdout.strip()
    until(lambda: on_lab("squeue", "-h", "-j", job, "-o", "%T").stdout.strip() == "RUNNING", "the job runs")
    yield job
    on_lab("scancel", job)
    until(lambda: not on_lab("squeue", "-h", "-j", job, check=False).stdout.strip(), "the job is gone")


def until(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline_s, f"never: {what}"
        time.sleep(0.2)


def test_a_running_job_is_recorded_from_outside_until_asked_to_stop(on_lab, user: str, root: Path, job: str) -> None:
    recorder = on_lab.start(PIOLET, "record", "--attach", job, user=user, env={"PIOLET_ROOT": str(root)})
    book = Logbook(root / on_lab.lab.name / job)
    until(
        lambda: recorder.poll() is not None or sampled(book) >= {("node", "sleep"), ("gpu", 2)},
        "both nodes have samples of GPUs and processes",
    )
    recorder.send_signal(signal.SIGINT)
    said, _ = recorder.communicate(timeout=DEADLINE_S)
    assert (recorder.returncode, said.splitlines()[-1]) == (0, str(book.path)), said
    assert on_lab("squeue", "-h", "-j", job, "-o", "%T").stdout.strip() == "RUNNING"
    record = json.loads(book.job.read_text())
    assert record["program_ended_ns"]
    held = {node["node"]: {gpu["uuid"] for gpu in node["gpus"]} for node in record["allocation"]}
    assert [len(uuids) for uuids in held.values()] == [2, 2]
    with read(book) as reader:
        found = reader.database.execute("SELECT node, list(DISTINCT uuid) FROM gpu GROUP BY node").fetchall()
        assert {node: set(uuids) for node, uuids in found} == held
        ended = reader.database.execute("SELECT count(*) FROM events WHERE code = 'stop'").fetchall()
    assert ended == [(2,)]


@rereading
def sampled(book: Logbook) -> set[tuple[str, object]]:
    """Return the names of processes seen on a node, and how many nodes have samples of GPUs."""
    with read(book) as reader:
        names = reader.database.execute("SELECT DISTINCT 'node', name FROM proc").fetchall()
        return {*names, ("gpu", *reader.database.execute("SELECT count(DISTINCT node) FROM gpu").fetchall()[0])}


def test_a_job_that_does_not_run_or_is_anothers_is_refused(on_lab, user: str, root: Path, job: str) -> None:
    def attached(name: str, **who: str) -> subprocess.CompletedProcess[str]:
        return on_lab(PIOLET, "record", "--attach", name, env={"PIOLET_ROOT": str(root)}, check=False, **who)

    waiting = on_lab("sbatch", "--parsable", "--hold", "-D", "/", "--wrap", "true", user=user).stdout.strip()
    told = attached(waiting, user=user)
    assert (told.returncode, "is not running: PENDING" in told.stderr) == (2, True)
    on_lab("scancel", waiting)
    told = attached("999999", user=user)
    assert told.returncode == 2
    assert "Invalid job id" in told.stderr
    told = attached(job, user="nobody")
    assert told.returncode in {2, 3}
    assert "permission" in told.stderr.lower() or "not permitted" in told.stderr.lower()
    assert not list(root.iterdir())
