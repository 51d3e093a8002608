from __future__ import annotations

import pytest

from piolet.core.errors import ParseError, ToolError, ToolMissing, ToolTimeout, UsageError
from piolet.core.nodeset import NodeSet
from piolet.core.run import SystemRunner
from piolet.tools.slurm import errors, jobs, rows, sacct, sbatch, scancel, scontrol, sinfo, squeue, srun
from piolet.tools.slurm.errors import SlurmUnavailable


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Puts a program of our own on PATH under the name of a command."""

    def make(name: str, script: str) -> SystemRunner:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return SystemRunner()

    return make


def test_without_slurm_the_remedy_is_to_stay_here_or_to_start_a_lab(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    runner = SystemRunner()
    asked = (
        lambda: squeue.jobs(runner),
        lambda: sacct.jobs(runner, [1]),
        lambda: sinfo.nodes(runner),
        lambda: scontrol.config(runner),
        lambda: sbatch.submit("#!/bin/sh"),
        lambda: scancel.cancel(runner, 1),
        lambda: jobs.find(runner, 1),
    )
    for ask in asked:
        with pytest.raises(ToolMissing) as caught:
            ask()
        assert "piolet run --local" in caught.value.remedy
        assert "piolet lab" in caught.value.remedy
        assert caught.value.exit_status == 3


def test_a_slurm_that_hangs_is_a_time_out(tool) -> None:
    with pytest.raises(ToolTimeout, match="squeue did not answer within"):
        errors.call(tool("squeue", "exec sleep 30"), squeue.argv(), timeout=0.2)


def test_a_slurm_that_waits_for_its_configuration_is_not_there(tool) -> None:
    runner = tool("sinfo", "echo 'sinfo: error: cannot stat file /etc/slurm.conf, retrying' >&2; exec sleep 30")
    with pytest.raises(SlurmUnavailable) as caught:
        errors.call(runner, sinfo.partitions_argv(), timeout=0.3)
    assert "SLURM_CONF" in caught.value.remedy


def test_what_is_not_known_stays_as_it_was_said(tool) -> None:
    with pytest.raises(ToolError, match="status 5: quite new") as caught:
        squeue.jobs(tool("squeue", "echo quite new >&2; exit 5"))
    assert type(caught.value) is ToolError


@pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("squeue", squeue.jobs),
        ("sinfo", sinfo.partitions),
        ("sinfo", sinfo.nodes),
        ("scontrol", scontrol.ping),
        ("sacct", lambda runner: sacct.jobs(runner, [1])),
        ("sbatch", lambda runner: sbatch.submit("#!/bin/sh", runner=runner)),
    ],
)
def test_garbage_is_a_parse_error(tool, name, ask) -> None:
    with pytest.raises(ParseError):
        ask(tool(name, r"printf 'Segmentation \377\037 fault\n'"))


def test_a_job_gets_the_locale_of_its_user_and_not_ours(tool, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.delenv("SLURM_TIME_FORMAT", raising=False)
    tool("sbatch", f"env > {tmp_path}/environ; cat > {tmp_path}/script; echo 17")
    assert sbatch.submit("#!/bin/sh\ntrue\n").job == 17
    given = (tmp_path / "environ").read_text().splitlines()
    assert "LC_ALL=C.UTF-8" in given
    assert not [line for line in given if line.startswith("SLURM_TIME_FORMAT")]
    assert (tmp_path / "script").read_text() == "#!/bin/sh\ntrue\n"


def test_a_script_can_be_given_by_its_path(tool, tmp_path) -> None:
    tool("sbatch", f'echo "$@" > {tmp_path}/argv; echo "18;alpine"')
    submitted = sbatch.submit(tmp_path / "job.sh", chosen=["--hold"])
    assert (submitted.job, submitted.cluster) == (18, "alpine")
    assert (tmp_path / "argv").read_text() == f"--parsable --hold {tmp_path}/job.sh\n"


def test_what_sbatch_says_before_the_id_is_left_aside() -> None:
    assert sbatch.parse("a site's greeting\n123\n").job == 123
    with pytest.raises(ParseError, match="named no job"):
        sbatch.parse("")


def test_a_batch_script_is_readable() -> None:
    request = sbatch.Request(
        4, name="my run", partition="main", gpus_per_node=4, exclusive=True, requeue=False, extra=("--constraint=h100",)
    )
    text = sbatch.script(sbatch.options(request), "srun hostname\n")
    assert text == (
        "#!/bin/bash\n"
        '#SBATCH --job-name="my run"\n'
        "#SBATCH --partition=main\n"
        "#SBATCH --nodes=4\n"
        "#SBATCH --gpus-per-node=4\n"
        "#SBATCH --exclusive\n"
        "#SBATCH --no-requeue\n"
        "#SBATCH --constraint=h100\n"
        "\n"
        "srun hostname\n"
    )


def test_what_a_batch_script_cannot_say_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="--job-name spans several lines"):
        sbatch.script(["--job-name=a\nb"], "true")


def test_a_request_says_only_what_was_asked() -> None:
    assert sbatch.options(sbatch.Request(1)) == ("--nodes=1",)
    assert sbatch.options(sbatch.Request(1, gpus_per_node=0, requeue=True)) == (
        "--nodes=1",
        "--gpus-per-node=0",
        "--requeue",
    )


def test_a_step() -> None:
    step = srun.Step(
        nodes=2,
        ntasks=8,
        ntasks_per_node=4,
        nodelist=NodeSet("node[1,3]"),
        gpus_per_node=4,
        environment="/plan",
        export="ALL,X=1",
        output="%N.log",
        job=7,
        overlap=True,
        exact=True,
        kill_on_bad_exit=True,
        label=True,
        extra=("--mpi=none",),
    )  # fmt: skip - one call
    assert srun.argv(step, ["python", "-c", "print(1)"]) == [
        "srun",
        "--jobid=7",
        "--nodes=2",
        "--ntasks=8",
        "--ntasks-per-node=4",
        "--nodelist=node[1,3]",
        "--gpus-per-node=4",
        "--environment=/plan",
        "--export=ALL,X=1",
        "--output=%N.log",
        "--overlap",
        "--exact",
        "--kill-on-bad-exit",
        "--label",
        "--mpi=none",
        "python",
        "-c",
        "print(1)",
    ]  # fmt: skip - a command line


def test_an_empty_step_leaves_all_to_slurm() -> None:
    assert srun.argv(srun.Step(), ["true"]) == ["srun", "true"]
    assert srun.argv(srun.Step(gpus_per_node=0), ["true"]) == ["srun", "--gpus-per-node=0", "true"]


def test_other_command_lines() -> None:
    assert scancel.argv([1, "2_3"], signal="TERM", full=True) == ["scancel", "--signal=TERM", "--full", "1", "2_3"]
    assert scontrol.shrink_argv(7, NodeSet("node[1-2]")) == ["scontrol", "update", "JobId=7", "NodeList=node[1-2]"]
    assert "--jobs=1,2_3" in squeue.argv(ids=[1, "2_3"])
    assert "--states=all" in squeue.argv()
    assert "--states=RUNNING,PENDING" in squeue.argv(states=["RUNNING", "PENDING"])
    assert "--allocations" in sacct.argv([1])
    assert "--allocations" not in sacct.argv([1], steps=True)
    assert "--nodes=node[1-2]" in sinfo.nodes_argv(nodes=NodeSet("node[1-2]"))
    assert "--partition=debug" in sinfo.partitions_argv("debug")


def sinfo_rows(*found: tuple[str, ...]) -> str:
    return "".join(rows.SEPARATOR.join(row) + "\n" for row in found)


def test_a_partition_of_unlike_nodes_is_one_partition() -> None:
    (main,) = sinfo.parse_partitions(
        sinfo_rows(
            ("main*", "up", "1/2/0/3", "1-8", "1-00:00:00", "node[1-3]"),
            ("main*", "up", "0/1/1/2", "1-8", "1-00:00:00", "node[4-5]"),
        )
    )
    assert (main.allocated, main.idle, main.other, main.total) == (1, 3, 1, 5)
    assert (main.default, main.max_nodes, main.time_limit_s) == (True, 8, 86400)
    assert main.nodes == NodeSet("node[1-5]")


def test_partitions_that_are_closed_or_empty() -> None:
    closed, empty = sinfo.parse_partitions(
        sinfo_rows(
            ("closed", "down", "0/0/4/4", "1-infinite", "infinite", "node[1-4]"),
            ("empty", "up", "0/0/0/0", "1-infinite", "infinite", ""),
        )
    )
    assert (closed.up, empty.total, len(empty.nodes)) == (False, 0, 0)


def test_node_counts_in_another_form_are_a_parse_error() -> None:
    with pytest.raises(ParseError, match="not node counts"):
        sinfo.parse_partitions(sinfo_rows(("main", "up", "1/2", "1", "1:00", "node1")))


def test_a_node_in_two_partitions_is_one_node() -> None:
    row = ("idle", "8", "16000", "gpu:h100:4", "Unknown", "Unknown", "none")
    (node,) = sinfo.parse_nodes(sinfo_rows(("node1", "main", *row), ("node1", "debug", *row)))
    assert node.partitions == ("main", "debug")
    assert (node.gpus, node.reason, node.reason_user) == (4, "", "")


def test_a_name_that_looks_almost_like_a_row_belongs_to_its_job() -> None:
    row = ["7", "7", "RUNNING", "u", "p", "2", "node[1-2]", "node1", "1", "2", "3", "1:00", "None"]
    name = "x\n" + rows.SEPARATOR.join(["no number", *row])
    (job,) = squeue.parse(rows.SEPARATOR.join([*row, name]) + "\n")
    assert job.name == name


@pytest.mark.parametrize("place", [5, 8, 11])
def test_a_row_with_garbage_in_a_field_is_a_parse_error(place) -> None:
    row = ["7", "7", "RUNNING", "u", "p", "2", "node[1-2]", "node1", "1", "2", "3", "1:00", "None", "name"]
    row[place] = "garbage"
    with pytest.raises(ParseError):
        squeue.parse(rows.SEPARATOR.join(row) + "\n")


def test_a_job_without_its_state_is_a_parse_error() -> None:
    with pytest.raises(ParseError, match="JobState"):
        scontrol.parse_jobs("JobId=7 JobName=x\n   ExitCode=0:0\n")


def test_no_rows_are_no_jobs() -> None:
    assert squeue.parse("") == []
    assert sacct.parse("") == []
    assert sinfo.parse_nodes("") == []
    assert scontrol.parse_jobs("No jobs in the system\n") == []
