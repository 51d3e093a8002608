from __future__ import annotations

import math

import pytest

from piolet.core.errors import ToolError, UsageError
from piolet.core.nodeset import NodeSet
from piolet.core.run import Result
from piolet.tools.slurm import errors, jobs, sacct, sbatch, scancel, scontrol, sinfo, squeue
from piolet.tools.slurm.errors import RequestRefused, SlurmUnavailable, UnknownJob
from piolet.tools.slurm.job import Job
from piolet.tools.slurm.states import JobState, NodeBase, NodeFlag, NodeState

LIVE = {JobState.RUNNING, JobState.PENDING}


@pytest.fixture
def live(replay) -> list[Job]:
    return [job for job in squeue.jobs(replay("busy")) if job.state in LIVE]


def named(found: list[Job], name: str) -> list[Job]:
    return [job for job in found if job.name == name]


def test_names_of_several_lines_and_other_encodings_are_whole(live) -> None:
    assert {job.name for job in live} == {
        "two\nlines = x  y",
        "sweep",
        "coupled",
        "caf\udce9 \udcff|pipe",
        "too large",
    }


def test_a_running_job_has_its_nodes_and_times(live) -> None:
    (job,) = named(live, "two\nlines = x  y")
    assert (job.state, str(job.nodes), job.node_count, job.batch_host) == (JobState.RUNNING, "node[1-2]", 2, "node1")
    assert job.user == "root"
    assert job.time_limit_s == math.inf
    assert job.submit_ns
    assert job.start_ns
    assert job.submit_ns <= job.start_ns
    assert job.end_ns is None


def test_an_array_has_a_row_for_each_task(live) -> None:
    tasks = named(live, "sweep")
    assert sorted(job.shown.partition("_")[2] for job in tasks) == ["1", "2", "3", "4", "5"]
    assert {job.state for job in tasks if job.nodes} == {JobState.RUNNING}
    assert {job.reason for job in tasks if not job.nodes} == {"JobArrayTaskLimit"}


def test_a_job_that_is_too_large_says_why_it_waits(live) -> None:
    (job,) = named(live, "too large")
    assert (job.state, job.reason, job.node_count, len(job.nodes)) == (JobState.PENDING, "PartitionNodeLimit", 9, 0)


def test_filters_are_answered(replay) -> None:
    found = squeue.jobs(replay("busy"), names=["sweep"], states=["RUNNING", "PENDING"])
    assert {job.name for job in found} == {"sweep"}


def test_scontrol_and_squeue_tell_the_same_of_every_job(replay, live, asked) -> None:
    shown = {
        job.id: job
        for argv in asked("busy", "scontrol", "--details")
        for job in scontrol.jobs(replay("busy"), argv[-1])
    }
    listed = {job.id: job for job in live}
    assert shown.keys() == listed.keys()
    for number, job in shown.items():
        other = listed[number]
        for field in ("state", "name", "user", "partition", "nodes", "batch_host", "submit_ns", "reason"):
            assert getattr(job, field) == getattr(other, field), field
        if job.state is JobState.RUNNING:
            assert (job.shown, job.start_ns, job.time_limit_s) == (other.shown, other.start_ns, other.time_limit_s)


def test_scontrol_tells_the_gpus_of_each_node_and_a_comment_that_lies(replay, live) -> None:
    (two_lines,) = named(live, "two\nlines = x  y")
    (job,) = scontrol.jobs(replay("busy"), two_lines.id)
    assert job.gpu_indexes == {"node1": (0, 1), "node2": (0, 1)}
    assert job.tres["gres/gpu"] == 4
    (other,) = named(live, "caf\udce9 \udcff|pipe")
    (job,) = scontrol.jobs(replay("busy"), other.id)
    assert (job.state, job.comment) == (JobState.RUNNING, "a=b JobState=FAILED c")


def test_a_job_is_found_as_its_user_names_it(replay, live) -> None:
    runner = replay("busy")
    array = min(job.id for job in named(live, "sweep"))
    het = min(job.id for job in named(live, "coupled"))
    everything = [*scontrol.jobs(runner, array), *scontrol.jobs(runner, het)]
    task = scontrol.matching(everything, f"{array}_1")
    component = scontrol.matching(everything, f"{het}+1")
    assert task
    assert component
    assert (task.state, str(task.nodes)) == (JobState.RUNNING, "node1")
    assert component.id == het + 1
    assert scontrol.matching(everything, f"{array}_99") is None


def test_partitions_count_their_nodes(replay) -> None:
    (main,) = sinfo.partitions(replay("busy"))
    assert (main.name, main.default, main.up, main.total, main.idle, main.other) == ("main", True, True, 4, 0, 2)
    assert main.nodes == NodeSet("node[1-4]")
    assert main.max_nodes == math.inf


def test_nodes_tell_their_states_gpus_and_reasons(replay) -> None:
    nodes = {node.name: node for node in sinfo.nodes(replay("busy"))}
    assert nodes["node1"].state == NodeState(NodeBase.MIXED)
    assert nodes["node3"].state.base is NodeBase.DOWN
    assert nodes["node4"].state == NodeState(NodeBase.IDLE, frozenset({NodeFlag.DRAIN}))
    assert nodes["node4"].reason == "GPU 1: Xid 79 | lost\nsee the ledger"
    assert nodes["node4"].reason_user == "root"
    assert nodes["node4"].reason_ns
    assert (nodes["node1"].reason, nodes["node1"].reason_ns) == ("", None)
    assert [node.name for node in nodes.values() if node.state.usable] == ["node1", "node2"]
    assert {(node.gpus, node.cpus, node.memory_bytes) for node in nodes.values()} == {(4, 8, 16000 << 20)}


def test_scontrol_and_sinfo_tell_the_same_of_every_node(replay) -> None:
    listed = {node.name: node for node in sinfo.nodes(replay("busy"))}
    for node in scontrol.node_records(replay("busy"), NodeSet("node[1-4]")):
        other = listed[node.name]
        for field in ("state", "partitions", "gres", "reason", "reason_user", "reason_ns"):
            assert getattr(node, field) == getattr(other, field), field
        assert node.version.startswith("22.05")
        assert node.address == "127.0.0.1"
        assert node.configured
        assert node.configured["gres/gpu"] == 4


def test_the_configuration_the_controller_and_hostlists(replay) -> None:
    runner = replay("busy")
    settings = scontrol.config(runner)
    assert settings["ClusterName"] == "recording"
    assert settings["AccountingStorageBackupHost"] == ""
    assert [(one.role, one.up) for one in scontrol.ping(runner)] == [("primary", True)]
    hostlist = "rack[1-2]n[01-03],login1"
    assert set(scontrol.hostnames(runner, hostlist)) == set(NodeSet(hostlist))


ENDS = {
    "completed": (JobState.COMPLETED, 0, 0),
    "failed": (JobState.FAILED, 7, 0),
    "killed": (JobState.FAILED, 0, 9),
    "cancelled": (JobState.CANCELLED, 0, 15),
    "timeout": (JobState.TIMEOUT, 0, 15),
    "shrunk": (JobState.CANCELLED, 0, 15),
}


@pytest.fixture
def ends(replay, asked) -> dict[str, Job]:
    found = [jobs.find(replay("ended"), argv[-1]) for argv in asked("ended", "scontrol")]
    return {job.name: job for job in found}


@pytest.mark.parametrize("name", ENDS)
def test_how_jobs_ended(ends, name) -> None:
    job = ends[name]
    assert (job.state, job.exit_code, job.signal) == ENDS[name]
    assert job.state.finished
    assert job.start_ns
    assert job.end_ns
    assert job.start_ns <= job.end_ns


def test_a_job_ran_out_of_its_minute(ends) -> None:
    job = ends["timeout"]
    assert job.time_limit_s == 60
    assert 60 <= (job.end_ns - job.start_ns) / 1e9 < 150


@pytest.mark.parametrize("name", ENDS)
def test_the_database_tells_the_same_end(ends, replay, name) -> None:
    job = ends[name]
    (stored,) = sacct.jobs(replay("ended"), [job.id])
    assert (stored.state, stored.exit_code, stored.nodes, stored.end_ns) == (
        job.state,
        job.exit_code,
        job.nodes,
        job.end_ns,
    )
    assert stored.name == name
    assert stored.tres == job.tres


def test_a_job_that_gave_nodes_back_has_its_last_size(ends, replay) -> None:
    (stored,) = sacct.jobs(replay("ended"), [ends["shrunk"].id])
    assert str(stored.nodes) == "node[1-2]"
    assert stored.node_count == 2


def test_steps_have_their_own_ends(ends, replay) -> None:
    steps = {step.name: step for step in sacct.steps(replay("ended"), ends["failed"].id)}
    assert (steps["0"].state, steps["0"].exit_code, steps["0"].command) == (JobState.FAILED, 7, "bash")
    assert steps["batch"].exit_code == 7
    assert str(steps["0"].nodes) == "node1"


def test_a_name_of_several_lines_in_the_database(ends, replay) -> None:
    job = ends["two\nlines | caf\udce9"]
    (stored,) = sacct.jobs(replay("ended"), [job.id])
    assert stored.name == "two\nlines | caf?"  # the database keeps UTF-8 only


def test_a_job_that_the_database_does_not_know_is_absent(replay) -> None:
    assert sacct.jobs(replay("ended"), [999999]) == []


REFUSED = {
    "--partition=nowhere": ("Invalid partition name", "sinfo -s"),
    "--nodelist=node99": ("Invalid node name", "sinfo -N"),
    "--mem=99T": ("Memory specification can not be satisfied", "less memory"),
    "--gpus-per-node=99": ("Requested node configuration is not available", "fewer GPUs"),
    "--time=soon": ("Invalid --time", "HH:MM:SS"),
    "--bogus": ("unrecognized option '--bogus'", "correct"),
    "--gres=gpu:h100:x": ("Invalid generic resource", "gpu:MODEL:COUNT"),
    "--nodes=0": ("Node count specification invalid", "fewer nodes"),
}


@pytest.mark.parametrize("option", REFUSED)
def test_what_slurm_refuses_is_wrong_usage_with_a_remedy(replay, option) -> None:
    said, remedy = REFUSED[option]
    with pytest.raises(RequestRefused) as caught:
        sbatch.submit("", chosen=("--output=/dev/null", "--chdir=/", option), runner=replay("refused"))
    assert said in caught.value.what
    assert "error:" not in caught.value.what
    assert remedy in caught.value.remedy
    assert caught.value.exit_status == 2


def test_a_script_without_an_interpreter_is_refused(replay) -> None:
    with pytest.raises(RequestRefused, match="does not look like a batch script"):
        sbatch.submit("echo", runner=replay("refused"))


def test_a_request_that_slurm_takes_has_its_job(replay) -> None:
    chosen = ("--output=/dev/null", "--chdir=/", "--cpus-per-task=999")
    assert sbatch.submit("", chosen=chosen, runner=replay("refused")).job > 0


def test_unknown_jobs_and_nodes(replay, asked) -> None:
    runner = replay("refused")
    for ask in (lambda: squeue.jobs(runner, ids=[999999]), lambda: scontrol.jobs(runner, 999999)):
        with pytest.raises(UnknownJob) as caught:
            ask()
        assert caught.value.exit_status == 2
        assert "squeue" in caught.value.remedy
    with pytest.raises(UnknownJob, match="job 999999"):
        jobs.find(runner, 999999)
    assert scontrol.node_records(runner, NodeSet("node99")) == []
    scancel.cancel(runner, 999999)
    (shrink,) = asked("refused", "scontrol", "update")
    with pytest.raises(RequestRefused, match="already finished"):
        scontrol.shrink(runner, int(shrink[2].partition("=")[2]), NodeSet("node1"))


def test_a_silent_controller_is_said_so_by_every_command(replay) -> None:
    runner = replay("controller-down")
    questions = (
        lambda: squeue.jobs(runner),
        lambda: scontrol.jobs(runner, 1),
        lambda: jobs.find(runner, 1),
        lambda: sinfo.partitions(runner),
        lambda: sbatch.submit("", runner=runner),
        lambda: scancel.cancel(runner, 1),
    )
    for ask in questions:
        with pytest.raises(SlurmUnavailable, match="Unable to contact slurm controller") as caught:
            ask()
        assert caught.value.exit_status == 3
        assert "scontrol ping" in caught.value.remedy
    assert [one.up for one in scontrol.ping(runner)] == [False]


def test_a_silent_database(replay) -> None:
    with pytest.raises(SlurmUnavailable, match="Problem talking to the database") as caught:
        sacct.jobs(replay("database-down"), [1])
    assert "slurmdbd" in caught.value.remedy


class OldJob:
    """A controller that has forgotten job 1, and the database of a recording."""

    def __init__(self, controller, database) -> None:
        self.controller, self.database = controller, database

    def run(self, argv, *, timeout, ok=(0,), stdin=None) -> Result:
        if argv[0] == "scontrol":
            argv = [*argv[:-1], "999999"]
            return self.controller.run(argv, timeout=timeout, ok=ok, stdin=stdin)
        return self.database.run(argv, timeout=timeout, ok=ok, stdin=stdin)


@pytest.mark.parametrize("scene", ["database-down", "no-accounting"])
def test_without_a_database_an_old_job_is_unknown(replay, scene) -> None:
    with pytest.raises(UnknownJob):
        jobs.find(OldJob(replay("refused"), replay(scene)), 1)


def test_an_old_job_is_found_in_the_database(replay, ends) -> None:
    number = ends["failed"].id
    old = jobs.find(OldJob(replay("refused"), replay("ended")), number)
    assert (old.id, old.state, old.exit_code) == (number, JobState.FAILED, 7)


def test_a_machine_without_a_cluster_says_what_runs_here(replay) -> None:
    with pytest.raises(SlurmUnavailable) as caught:
        sinfo.partitions(replay("not-configured"))
    assert "piolet run --local" in caught.value.remedy
    assert "piolet lab" in caught.value.remedy


def test_what_nobody_knows_stays_a_tool_error() -> None:
    error = ToolError(["squeue"], 1, "a new message")
    assert errors.translated(error) is error
    assert not isinstance(error, UsageError)
