"""A job that nodes have failed is tried again elsewhere, as often as allowed; one that its user has failed never is."""

import json
import threading
import time

import pytest

pytestmark = pytest.mark.cluster

ONE_FAILS = "[ $SLURM_PROCID = 1 ] && exit 7; exec sleep 60"
SOON = {"PIOLET_RUN_RESTART_DELAY_S": "1"}


def logbooks(run):
    """Every logbook in the order of its jobs: job.json and outcome.json."""
    found = sorted(run.root.glob("*/*/outcome.json"), key=lambda path: int(path.parent.name))
    return [
        (json.loads((path.parent / "job.json").read_text()), json.loads(path.read_text()), path.parent.name)
        for path in found
    ]


def test_a_bad_first_node_sends_the_job_elsewhere(piolet_run, faulty):
    faulty("node1:0", "--xid", "79")

    done = piolet_run("-N", "2", "--vet", "quick", "--restarts", "2", "--", "hostname", env=SOON)

    (first, refused, job), (second, outcome, _) = logbooks(piolet_run)
    assert (refused["state"], refused["domain"], refused["bad_nodes"]) == ("FAILED", "infrastructure", ["node1"])
    assert refused["next_job"] == second["job_id"]
    assert (first["attempt"], second["attempt"], second["previous_job"]) == (1, 2, job)
    assert outcome["state"] == "COMPLETED"
    assert "node1" not in [held["node"] for held in second["allocation"]]
    assert "submitted again as job" in done.stdout
    assert "following job" in done.stderr


def test_a_node_that_fails_while_the_program_runs_is_left_out_of_the_next_attempt(piolet_run, on_lab):
    script = '[ -e "$0$SLURM_PROCID" ] && exit; touch "$0$SLURM_PROCID"; sleep 60'
    marker = piolet_run.root / "began"

    def fail_node2():
        until(marker.with_name("began1").exists)
        on_lab("scontrol", "update", "NodeName=node2", "State=DOWN", "Reason=test")

    breaker = threading.Thread(target=fail_node2)
    breaker.start()
    try:
        piolet_run(
            "-N", "2", "--vet", "quick", "--restarts", "1", "--", "sh", "-c", script, marker, env=SOON, check=False
        )
    finally:
        breaker.join()
        on_lab(
            "scontrol", "update", "NodeName=node2", "State=RESUME", check=False
        )  # a slurmd that answers may come back by itself

    (_, failed, _), (second, outcome, _) = logbooks(piolet_run)
    assert (failed["state"], failed["domain"], failed["bad_nodes"]) == ("NODE_FAIL", "infrastructure", ["node2"])
    assert outcome["state"] == "COMPLETED"
    assert "node2" not in [held["node"] for held in second["allocation"]]


def until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_cap_holds_and_the_last_attempt_says_so(piolet_run, faulty):
    for node in range(1, 6):
        faulty(f"node{node}:0", "--xid", "79")

    done = piolet_run("-N", "2", "--vet", "quick", "--restarts", "1", "--", "hostname", env=SOON, check=False)

    assert done.returncode == 3
    (_, first, _), (_, last, _) = logbooks(piolet_run)
    assert len(first["bad_nodes"]) == len(last["bad_nodes"]) == 2
    assert set(first["bad_nodes"]).isdisjoint(last["bad_nodes"])
    assert last["next_job"] == ""
    assert "the last that --restarts allows" in done.stdout + done.stderr


def test_a_users_error_is_never_tried_again(piolet_run):
    done = piolet_run("-N", "2", "--restarts", "2", "--", "sh", "-c", ONE_FAILS, env=SOON, check=False)

    assert done.returncode == 7
    [(job, outcome, _)] = logbooks(piolet_run)
    assert (job["attempt"], outcome["domain"], outcome["bad_nodes"], outcome["next_job"]) == (1, "workload", [], "")


def test_a_job_that_waits_too_long_is_cancelled_and_has_an_outcome(piolet_run, on_lab):
    holder = on_lab("sbatch", "--parsable", "-N5", "--exclusive", "--output=/dev/null", "--wrap", "sleep 60").stdout
    try:
        done = piolet_run("-N", "1", "--max-wait", "1", "--", "hostname", check=False)
    finally:
        on_lab("scancel", holder.strip())

    assert done.returncode != 0
    assert "has not begun within 1 s" in done.stderr
    [path] = piolet_run.root.glob("*/*/outcome.json")
    outcome = json.loads(path.read_text())
    assert (outcome["state"], outcome["domain"]) == ("CANCELLED", "user")
    assert "before it began" in outcome["reason"]
    assert not piolet_run.jobs()


def test_restarts_inside_of_an_allocation_of_ones_own_are_refused(piolet_run, on_lab, user):
    done = on_lab(
        "salloc", "--quiet", "-N1", piolet_run.piolet, "run", "--restarts", "1", "--", "hostname",
        user=user, env=piolet_run.env, check=False,
    )  # fmt: skip

    assert done.returncode == 2
    assert "submitted" in done.stderr


def test_a_program_whose_loss_is_no_number_is_ended_early(piolet_run):
    program = 'for step in 1 2 3 4; do echo "step $step loss nan"; done; exec sleep 60'

    done = piolet_run("-N", "2", "--abort-on", "nan", "--", "sh", "-c", program, check=False)

    assert done.returncode == 143
    [(_, outcome, _)] = logbooks(piolet_run)
    assert (outcome["state"], outcome["aborted_on"], outcome["domain"]) == ("FAILED", "nan", "workload")
    assert "not a number" in outcome["reason"]
    assert not piolet_run.jobs()


def test_a_program_that_needs_more_time_goes_on_in_the_next_job_of_its_chain(piolet_run):
    """Slurm counts in minutes, so the warning comes at the start of a job of one minute."""
    script = (
        'trap "exit 0" USR1; echo "every $PIOLET_CHECKPOINT_INTERVAL_S"; touch "$0.$SLURM_JOB_ID";'
        ' [ $(ls "$0".* | wc -l) = 2 ] && exit 0; while :; do sleep 0.1; done'
    )
    options = ("--time", "1", "--signal", "USR1@59", "--chain", "3", "--checkpoint", "60")

    done = piolet_run("-N", "2", *options, "--", "sh", "-c", script, piolet_run.root / "began", env=SOON)

    (_, first, job), *rest = logbooks(piolet_run)
    assert first["state"] == "COMPLETED"
    assert first["next_job"] == rest[0][0]["job_id"]
    assert rest[0][0]["previous_job"] == job
    assert f"goes on as job {first['next_job']}" in done.stdout
    assert "every 28" in done.stdout, done.stdout
