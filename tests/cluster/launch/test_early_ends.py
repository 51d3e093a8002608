"""A program that has come to nothing is ended, with the reason and what was seen."""

import json
import sys
import threading
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

PIOLET = Path(sys.executable).parent / "piolet"

SOON = {
    "PIOLET_RECORD_FLUSH_S": "1",
    "PIOLET_RUN_HANG_S": "3",
    "PIOLET_RUN_HANG_GRACE_S": "2",
    "PIOLET_RUN_RESTART_DELAY_S": "1",
}
WAITS = "import os, time\ndef waits_for_the_others():\n    time.sleep(600)\nwaits_for_the_others()"


def workload(on_lab, lab, tmp_path, phases):
    script = tmp_path / "script"
    script.write_text(phases)
    on_lab(PIOLET, "lab", "workload", "--name", lab.name, "node[1-5]", script)


def test_a_hang_is_told_with_the_stacks_of_all_ranks(piolet_run, on_lab, lab, tmp_path):
    def hang():
        until(lambda: len(list(piolet_run.root.glob("*/*/telemetry/gpu/*.parquet"))) >= 4)
        workload(on_lab, lab, tmp_path, "hang 3600\n")

    workload(on_lab, lab, tmp_path, "compute 3600\n")
    hanging = threading.Thread(target=hang)
    hanging.start()
    try:
        done = piolet_run(
            "-N", "2", "--record", "--abort-on", "hang", "--", "python3", "-c", WAITS, env=SOON, check=False
        )
    finally:
        hanging.join()
        workload(on_lab, lab, tmp_path, "idle 1\n")

    outcome = piolet_run.read("outcome.json")
    assert (done.returncode, outcome["aborted_on"], outcome["domain"]) == (143, "hang", "unknown")
    assert "8 GPUs have done no work for" in outcome["reason"]
    texts = [path.read_text() for path in (piolet_run.logbook / "stacks").glob("*.txt")]
    assert len(texts) == 2
    assert all("waits_for_the_others" in text for text in texts)
    assert {text.split(",")[0] for text in texts} == {"== rank 0", "== rank 1"}


def test_an_xid_ends_the_program_and_its_node_is_left_out_of_the_next_attempt(piolet_run, faulty):
    script = '[ -e "$0" ] && exit; [ $SLURM_PROCID = 0 ] && touch "$0.began"; exec sleep 600'
    marker = piolet_run.root / "again"

    def break_a_gpu():
        until(marker.with_name("again.began").exists)
        until(lambda: any(piolet_run.root.glob("*/*/events/node*.parquet")))
        marker.touch()
        for node in range(1, 6):
            faulty(f"node{node}:1", "--xid", "48")

    breaker = threading.Thread(target=break_a_gpu)
    breaker.start()
    try:
        piolet_run(
            "-N", "1", "--record", "--abort-on", "xid", "--restarts", "1", "--", "sh", "-c", script, marker, env=SOON
        )
    finally:
        breaker.join()

    first, second = sorted(piolet_run.root.glob("*/*/outcome.json"), key=lambda path: int(path.parent.name))
    outcome, job = json.loads(first.read_text()), json.loads(second.with_name("job.json").read_text())
    assert (outcome["aborted_on"], outcome["domain"], outcome["exit_status"]) == ("xid", "infrastructure", 143)
    assert "Xid 48 (double-bit ECC error) on node" in outcome["reason"]
    assert outcome["bad_nodes"] == [outcome["first_failing_node"]]
    assert outcome["bad_nodes"][0] not in [held["node"] for held in job["allocation"]]
    assert json.loads(second.read_text())["state"] == "COMPLETED"


SILENT = """
import piolet, time
for step in range(20):
    piolet.log(step=step, loss=2.0)
    time.sleep(0.5)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_program_that_gives_no_sign_of_life_is_ended_and_blames_nobody(piolet_run):
    arguments = ("-N", "2", "--record", "--heartbeat", "60", "--restarts", "1", "--", sys.executable, "-c", SILENT)
    done = piolet_run(*arguments, env=SOON, check=False, timeout=300)

    outcome = piolet_run.read("outcome.json")
    assert (done.returncode, outcome["aborted_on"], outcome["domain"]) == (143, "heartbeat", "unknown")
    assert outcome["reason"].startswith("ended early (heartbeat: no step and no piolet.log or piolet.phase for 6")
    assert (outcome["bad_nodes"], outcome["next_job"], piolet_run.jobs()) == ([], "", [])
    assert list(piolet_run.logbook.glob("telemetry/user/*.parquet")), "its steps were recorded"


def until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
