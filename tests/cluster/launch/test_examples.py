"""The examples on a real Slurm cluster whose node2 has a GPU that fell off the bus before the start."""

import contextlib
import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from piolet.logbook import quality, reader, records
from piolet.logbook.layout import Logbook

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


def losses(output):
    return [float(loss) for loss in re.findall(r"^step \d+ loss ([0-9.]+)$", output, flags=re.MULTILINE)]


def check_swap(logbook):
    job, outcome = (json.loads((logbook / name).read_text()) for name in ("job.json", "outcome.json"))
    assert (outcome["state"], outcome["exit_status"]) == ("COMPLETED", 0)
    assert [refusal["node"] for refusal in job["refused"]] == ["node2"]
    assert "Xid 79" in job["refused"][0]["reason"]
    used = sorted(held["node"] for held in job["allocation"] if held["used"])
    assert used == ["node1", "node3", "node4"]
    assert {"nodes", "GPUs"} <= set(job["simulated"])
    assert all(len(held["gpus"]) == 4 for held in job["allocation"] if held["used"])
    page = (logbook / "report.html").read_text()
    assert "Xid 79" in page
    assert "Simulated: nodes, GPUs" in page


def check_told(logbook, steps):
    """What rank 0 told the recorder from inside its container is in the logbook and in the report."""
    with reader.read(Logbook(logbook)) as opened:
        told = opened.database.execute(
            "SELECT step, value FROM user WHERE name = 'loss' AND rank = 0 ORDER BY time_ns"
        ).fetchall()
        phases = opened.database.execute("SELECT code FROM events WHERE kind = 'phase' ORDER BY time_ns").fetchall()
    assert [step for step, _ in told] == sorted({step for step, _ in told})
    assert told[-1][0] == steps
    assert len(told) > steps / 3  # the recorder may start after the program
    assert told[-1][1] < told[0][1]
    assert ("training",) in phases
    assert 'data-series="user loss"' in (logbook / "report.html").read_text()


def test_the_examples_of_the_readme_swap_the_bad_node_and_train(piolet_run, faulty):
    faulty("node2:1", "--xid", "79")
    done = piolet_run.document("examples/README.md")
    assert done.stdout.count("node2 is refused") == done.stdout.count("piolet: completed") == 2
    assert "6 ranks on 3 nodes" in done.stdout
    first_climb, pytorch = piolet_run.logbooks
    for logbook, steps in ((first_climb, 150), (pytorch, 60)):
        check_swap(logbook)
        check_told(logbook, steps)
    assert json.loads((first_climb / "environment.lock.json").read_text())["image"]["sha256"]


def test_steps_that_a_framework_prints_are_in_the_logbook(piolet_run):
    line = " iteration {0:8d}/ 500 | elapsed time per iteration (ms): 200.0 | lm loss: {1:.6E} | grad norm: 0.1 |"
    program = f"import time\nfor step in range(1, 31): print({line!r}.format(step, 9 / step)); time.sleep(0.2)"
    done = piolet_run("-N", "2", "--record", "--env", "demo", "--", "python3", "-c", program)
    assert done.stdout.count("lm loss") == 60  # from both nodes
    with reader.read(Logbook(piolet_run.logbook)) as opened:
        told = opened.database.execute("SELECT name, step, value FROM user ORDER BY time_ns").fetchall()
    assert {name for name, *_ in told} == {"loss", "step_time_s"}
    assert all(value == pytest.approx(0.2) for name, _, value in told if name == "step_time_s")
    assert all(value == pytest.approx(9 / step, rel=1e-5) for name, step, value in told if name == "loss")
    assert max(step for _, step, _ in told) == 30
    assert 'data-series="user step_time_s"' in (piolet_run.logbook / "report.html").read_text()


def agents_of(logbook, node):
    """The processes on `node` that record into `logbook`, as pid: parent's pid."""
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes()
                if str(logbook).encode() not in words or b"piolet.record" not in words:
                    continue
                if f"SLURMD_NODENAME={node}\0".encode() in (process / "environ").read_bytes():
                    found[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def pid_of(victim, logbook, node):
    """The pid of the sampler, or of the supervisor whose child it is; None as long as there is none."""
    agents = agents_of(logbook, node)
    for pid, parent in agents.items():
        if parent in agents:
            return pid if victim == "sampler" else parent
    return None


@pytest.mark.parametrize("victim", ["supervisor", pytest.param("sampler", marks=pytest.mark.slow)])
def test_a_killed_agent_costs_ten_seconds_at_most_and_the_report_says_how_much(piolet_run, victim):
    killed = []

    def kill():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            time.sleep(0.5)
            for segment in piolet_run.root.glob("*/*/telemetry/gpu/node3-*.parquet"):
                pid = pid_of(victim, segment.parents[2], "node3")
                if pid and not killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    train = ("python3", "examples/01-first-climb/train.py", "--steps", "250")
    done = piolet_run("-N", "4", "--vet", "quick", "--record", "--env", "demo", "--", *train)
    killer.join()
    assert killed, "no agent was found to kill"
    assert losses(done.stdout)[-1] < losses(done.stdout)[0]
    assert piolet_run.read("outcome.json")["state"] == "COMPLETED"

    logbook = Logbook(piolet_run.logbook)
    with reader.read(logbook) as opened:
        found = quality.assess(opened, records.read_job(logbook.job))
    missing = {each.node: each.missing_s for each in found.coverage if each.family == "gpu"}
    assert set(missing) == {"node1", "node2", "node3", "node4"}
    assert missing["node3"] <= 10
    assert max(seconds for node, seconds in missing.items() if node != "node3") <= 4
    assert ("node3", 1) in found.agent_restarts
    assert "restart" in (piolet_run.logbook / "report.html").read_text()
