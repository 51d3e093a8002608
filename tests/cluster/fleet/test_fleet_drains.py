"""The fleet on a real cluster: what it does is really in Slurm, and what is told is really read."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_kills import fatal, reasons

from piolet.core.nodeset import NodeSet
from piolet.fleet import center, gathering, policy
from piolet.tools.slurm import scontrol

pytestmark = pytest.mark.cluster

CLIMB = Path(__file__).parents[3] / "examples/06-fleet-heals/climb.sh"

SHOWN = (
    "node2: in -> suspect: a fatal error of the GPU (xid:79)",
    "rule xid-fatal-again (advise) asks for drained: fatal errors of the same GPU in different jobs on GPU-",
    "withheld: drain node2: waits for `piolet fleet approve node2`",
    "drain node2: piolet: xid-fatal-again: fatal errors of the same GPU in different jobs on GPU-",
    "$ sinfo --list-reasons",
    "piolet: xid-fatal-ag root",
    "resume node2: job",
    "ActiveFeatures=piolet_probation",
    "unmark node2",
    "node2 is in since",
    "$ piolet fleet ledger print",
    "logbook saw xid:79 fail on node2 GPU-",
    "node2: in -> suspect",
    "ordered approve of node2: seen twice",
    "drain of node2 begun",
    "node2: suspect -> drained",
    "reset of node2 done",
    "node2: drained -> reset",
    "vet of node2 done",
    "node2: reset -> revalidate",
    "check:revalidation pass on node2",
    "node2: revalidate -> probation",
    "mark of node2 done",
    "node2: probation -> in: 2 clean jobs",
    "unmark of node2 done",
    "entries, unchanged",
)


@pytest.mark.usefixtures("runner")
def test_from_a_gpu_that_fails_in_real_jobs_to_a_drain_a_reset_and_back(small_lab, tmp_path, commands_on) -> None:
    run = commands_on(small_lab)
    told = run("sh", CLIMB, small_lab.name, cwd=tmp_path, timeout=280).stdout
    rest = told
    for line in SHOWN:
        assert line in rest, told
        rest = rest[rest.index(line) + len(line) :]
    assert "piolet_probation" not in run("scontrol", "show", "node", "node2").stdout
    assert "piolet-node2" not in run("scontrol", "show", "reservation").stdout


def test_an_administrators_drain_is_never_touched(runner, settings) -> None:
    path, rules = Path(settings["PIOLET_FLEET_DATABASE"]), policy.load(Path(settings["PIOLET_FLEET_POLICY"]))
    scontrol.drain(runner, NodeSet("node4"), "RAM, ask Ann")
    with center.opened(path, rules) as opened:
        opened.gather([fatal("node4", job) for job in (1, 2)], 4)
        plan = opened.plan(gathering.cluster_now(runner))
        assert plan.actions == ()
        assert plan.withheld[0].why == "drained by somebody else: RAM, ask Ann"
    assert reasons(runner) == {"node4": "RAM, ask Ann"}


SLURM_CONF = """
HealthCheckProgram={directory}/health_check.sh
HealthCheckInterval=1
HealthCheckNodeState=ANY
TaskProlog={directory}/task_prolog.sh
Prolog={directory}/health_check.sh
Epilog={directory}/health_check.sh
SlurmdDebug=debug2
CliFilterPlugins=lua
"""


@pytest.fixture
def with_helpers(small_lab, runner, tmp_path) -> Iterator[Path]:
    """The directory of verdicts of a cluster that runs the helpers, and the example of the reference page."""
    directory, conf = tmp_path / "verdicts", small_lab.slurm_conf
    before = conf.read_text()
    page = (Path(__file__).parents[3] / "docs/reference/fleet.md").read_text()
    example = re.search(r"(?ms)^    -- cli_filter.lua.*?^    end$", page)
    assert example
    (conf.parent / "cli_filter.lua").write_text(
        textwrap.dedent(example.group()).replace("/shared/piolet/verdicts", str(directory))
    )
    tmp_path.chmod(0o755)
    conf.write_text(before + SLURM_CONF.format(directory=directory))
    runner.run(["scontrol", "reconfigure"], timeout=60)
    yield directory
    conf.write_text(before)
    runner.run(["scontrol", "reconfigure"], timeout=60)


def test_nodes_and_users_are_told_and_nothing_in_slurm_changes(
    small_lab, runner, settings, with_helpers, commands_on
) -> None:
    run = commands_on(small_lab)
    with center.opened(Path(settings["PIOLET_FLEET_DATABASE"]), policy.load()) as opened:
        opened.gather([fatal("node2", 1), fatal("../node9", 1)], 4)
    assert "verdicts on 1 of 4 nodes" in run("piolet", "fleet", "verdicts", with_helpers, env=settings).stdout
    while run("srun", "--nodes=4", "true", check=False).returncode:
        time.sleep(0.1)  # a slurmd that reads its configuration anew may refuse
    job = run("srun", "--nodelist=node2", "--ntasks=2", "sh", "-c", "echo verdict $PIOLET_NODE_VERDICT")
    told = "node2 is suspect: a fatal error of the GPU (xid:79)"
    assert job.stdout.count("verdict suspect") == 2
    assert job.stdout.count(f"piolet: {told}") == 1
    assert told in job.stderr
    assert "PIOLET_NODE_VERDICT" not in run("srun", "--nodelist=node1", "env").stdout
    log = small_lab.directory / "log" / "slurmd-node2.log"
    for helper in ("health_check", "prolog", "epilog"):
        while not re.search(rf"{helper} success.*output:piolet: {re.escape(told)}", log.read_text()):
            time.sleep(0.1)
    assert reasons(runner) == {}
