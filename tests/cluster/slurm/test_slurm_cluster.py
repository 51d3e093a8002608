from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from piolet.core.errors import UsageError
from piolet.core.nodeset import NodeSet
from piolet.core.run import SystemRunner
from piolet.tools.slurm import jobs, sbatch, scancel, scontrol, sinfo, squeue, srun
from piolet.tools.slurm.errors import RequestRefused, UnknownJob
from piolet.tools.slurm.job import Job
from piolet.tools.slurm.states import JobState

pytestmark = pytest.mark.cluster

SLEEP = "#!/bin/sh\nsleep 300\n"
QUIET = ("--output=/dev/null", "--chdir=/")


@pytest.fixture
def runner(lab) -> SystemRunner:
    return SystemRunner(lab.environment())


@pytest.fixture
def submit(runner) -> Iterator[Callable[..., int]]:
    """Submits jobs and ends them after the test."""
    ids: list[int] = []

    def submitted(script: str, *options: str) -> int:
        ids.append(sbatch.submit(script, chosen=(*QUIET, *options), runner=runner).job)
        return ids[-1]

    yield submitted
    scancel.cancel(runner, *ids)
    for job in ids:
        until(runner, job, lambda job: job.state.finished)


def until(runner: SystemRunner, job: int | str, holds: Callable[[Job], bool]) -> Job:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = jobs.find(runner, job)
        if holds(found):
            return found
        time.sleep(0.1)
    pytest.fail(f"{found} did not come to the expected state")


def test_a_job_runs_gives_nodes_back_and_is_cancelled(runner, submit) -> None:
    job = submit(SLEEP, "--nodes=4", "--gpus-per-node=2", "--job-name=shrinks")
    running = until(runner, job, lambda job: job.state is JobState.RUNNING)
    assert (len(running.nodes), running.tres["node"]) == (4, 4)
    assert set(running.gpu_indexes) == set(running.nodes)
    assert all(len(indexes) == 2 for indexes in running.gpu_indexes.values())
    keep = NodeSet(running.batch_host) | (running.nodes - NodeSet(running.batch_host)).first(1)
    with pytest.raises(RequestRefused, match="Invalid node name") as caught:
        scontrol.shrink(runner, job, running.nodes - keep)
    assert "batch host" in caught.value.remedy
    scontrol.shrink(runner, job, keep)
    assert scontrol.jobs(runner, job)[0].nodes == keep
    with pytest.raises(RequestRefused, match="DB index") as caught:
        scontrol.shrink(runner, job, NodeSet(running.batch_host))
    assert "once only" in caught.value.remedy
    scancel.cancel(runner, job)
    ended = until(runner, job, lambda job: job.state.finished)
    assert (ended.state, ended.signal) == (JobState.CANCELLED, signal.SIGTERM)


@pytest.mark.parametrize(("script", "expected"), [("exit 7", (7, 0)), ("kill -KILL $$", (0, 9)), ("true", (0, 0))])
def test_how_a_script_ends_is_told(runner, submit, script, expected) -> None:
    job = submit(f"#!/bin/sh\n{script}\n")
    ended = until(runner, job, lambda job: job.state.finished)
    assert (ended.exit_code, ended.signal) == expected
    assert ended.end_ns
    assert abs(ended.end_ns / 1e9 - time.time()) < 60


@pytest.mark.parametrize("name", ["two\nlines = x  y", "caf\udce9 | \udcff", "JobState=FAILED", 'it\'s "q" \\ # $HOME'])
def test_names_come_back_from_both_commands(runner, submit, name) -> None:
    job = submit(SLEEP, "--hold", f"--job-name={name}")
    assert squeue.jobs(runner, ids=[job])[0].name == name
    found = jobs.find(runner, job)
    assert (found.name, found.state) == (name, JobState.PENDING)


@pytest.mark.parametrize("name", ["a b", "it's", 'say "x"', "back\\slash", "a#b # c", "$HOME `x`", "tail\\", "é"])
def test_sbatch_reads_a_script_as_it_was_meant(runner, name) -> None:
    text = sbatch.script([*QUIET, "--hold", f"--job-name={name}"], "true")
    job = sbatch.submit(text, runner=runner).job
    try:
        assert squeue.jobs(runner, ids=[job])[0].name == name
    finally:
        scancel.cancel(runner, job)


def test_tasks_of_an_array_and_components_are_found_by_the_names_users_see(runner, submit) -> None:
    array = submit(SLEEP, "--array=1-3%1")
    until(runner, f"{array}_1", lambda job: job.state is JobState.RUNNING)
    with pytest.raises(UnknownJob):
        jobs.find(runner, f"{array}_9")
    shown = {job.shown for job in squeue.jobs(runner, ids=[array])}
    assert shown == {f"{array}_{task}" for task in (1, 2, 3)}


def test_the_environment_of_a_step_tells_where_it_is(runner, lab) -> None:
    code = (
        "import json, os; from piolet.tools.slurm.allocation import from_environ; a = from_environ(os.environ);"
        "print(json.dumps([str(a.nodes), a.node, a.node_index, a.rank, a.local_rank, a.ntasks, a.gpus, a.cluster]))"
    )
    step = srun.Step(nodes=2, ntasks_per_node=2, gpus_per_node=3, immediate_s=30)
    said = runner.run(srun.argv(step, [sys.executable, "-c", code]), timeout=60).stdout
    tasks = sorted((json.loads(line) for line in said.splitlines()), key=lambda task: task[3])
    assert [task[3:6] for task in tasks] == [[0, 0, 4], [1, 1, 4], [2, 0, 4], [3, 1, 4]]
    assert [task[2] for task in tasks] == [0, 0, 1, 1]
    assert {task[0] for task in tasks} == {str(NodeSet(task[1] for task in tasks))}
    assert all(len(task[6]) == 3 and task[7] == lab.spec.name for task in tasks)


def test_partitions_and_nodes(runner) -> None:
    (partition,) = sinfo.partitions(runner)
    nodes = sinfo.nodes(runner, partition.name)
    assert (partition.default, partition.up, partition.total) == (True, True, len(nodes))
    assert NodeSet(node.name for node in nodes) == partition.nodes
    assert {node.gpus for node in nodes} == {4}
    assert sinfo.partitions(runner, "nowhere") == []
    assert sinfo.nodes(runner, chosen=NodeSet("node2"))[0].name == "node2"


def test_a_node_that_does_not_exist_is_absent(runner) -> None:
    assert scontrol.node_records(runner, NodeSet("node99")) == []
    assert [node.name for node in scontrol.node_records(runner, NodeSet("node[1-2]"))] == ["node1", "node2"]


def test_what_is_no_job_id_is_wrong_usage(runner) -> None:
    for job in ("x", "999999", "1_x"):
        with pytest.raises(UsageError):
            jobs.find(runner, job)


def test_node_sets_are_those_of_slurm(runner) -> None:
    rnd = random.Random(7)  # noqa: S311 - test data
    for _ in range(20):
        parts = [
            f"r{rnd.randint(0, 2)}n{rnd.randint(1, 12):02d}-{rnd.choice(['a', 'b'])}" for _ in range(rnd.randint(1, 9))
        ]
        folded = str(NodeSet([*parts, "login1"]))
        assert set(scontrol.hostnames(runner, folded)) == set(NodeSet(folded)) == {*parts, "login1"}


def test_shrinking_leaves_no_script_behind(lab, submit, runner, tmp_path: Path) -> None:
    job = submit(SLEEP, "--nodes=2")
    running = until(runner, job, lambda job: job.state is JobState.RUNNING)
    scontrol.shrink(SystemRunner(lab.environment(), cwd=tmp_path), job, NodeSet(running.batch_host))
    assert list(tmp_path.iterdir()) == []
