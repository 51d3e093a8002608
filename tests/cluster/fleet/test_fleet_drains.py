"""The fleet on a real cluster: drains really are in Slurm, and a kill at any step neither loses nor doubles one."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_kills import STAGES, drained, fatal, reasons, steps

from piolet.core.nodeset import NodeSet
from piolet.fleet import applying as acting
from piolet.fleet import center, gathering, policy
from piolet.fleet.applying import AFTER
from piolet.fleet.ledger import Order, Transition, Verb
from piolet.tools.slurm import scontrol

pytestmark = pytest.mark.cluster

# A job whose GPU fails once the recorder has begun, and which goes on until the recorder has told of it.
FAILING = """
segments() {{ ls {root}/*/$SLURM_JOB_ID/$1/* 2> /dev/null | wc -l; }}
wait_for() {{ while [ "$(segments telemetry/gpu)" -lt "$1" ]; do sleep 0.1; done; }}
wait_for 1
piolet lab gpu --name {lab} $(hostname):0 --xid 79
wait_for $(($(segments telemetry/gpu) + 2))
exit 1
"""


def test_from_a_gpu_that_fails_in_real_jobs_to_a_drain_a_reset_and_back(
    small_lab, runner, settings, tmp_path, commands_on
) -> None:
    run, root = commands_on(small_lab), tmp_path / "root"
    script = tmp_path / "failing.sh"
    script.write_text(FAILING.format(root=root, lab=small_lab.name))
    recorded = {"PIOLET_ROOT": str(root), "PIOLET_RECORD_FLUSH_S": "1"}

    def fleet(*argv: str) -> str:
        return run("piolet", "fleet", *argv, env=settings).stdout

    def gathered(what: str) -> bool:
        """Gather until `what` is known: Slurm tells of the end of a job when it likes."""
        return any(what in fleet("gather") + fleet("ledger", "print") for _ in range(600))

    def applied(what: str) -> bool:
        """Apply until `what` is done: a node may be busy for a moment, or late with an answer."""
        return any(what in fleet("apply") for _ in range(600))

    fleet("gather")  # the jobs of other tests
    for _ in range(2):
        run("piolet", "lab", "gpu", "--name", small_lab.name, "node2:0", "--clear")
        argv = ("piolet", "run", "-N1", "--exclude=node[1,3-4]", "--record", "--", "sh", script)
        assert run(*argv, env=recorded, check=False, timeout=120).returncode == 1
    told = fleet("gather", str(root))
    assert "rule again (advise) asks for drained: fatal errors of the same GPU on GPU-" in told
    assert "node2: in -> suspect" in told
    assert "0 new pieces of evidence" in fleet("gather", str(root))
    assert "withheld: drain node2: waits for `piolet fleet approve node2`" in fleet("plan")
    fleet("approve", "node2", "--reason", "seen twice")
    assert "drain node2" in fleet("apply", "--dry-run")
    assert reasons(runner) == {}
    fleet("apply")
    assert reasons(runner)["node2"].startswith("piolet: again: fatal errors of the same GPU on GPU-")
    assert "next: has its GPU reset" in fleet("explain", "node2")
    assert applied("reset node2")
    assert (tmp_path / "resets").read_text().startswith("node2 GPU-")
    assert applied("vet node2: after its reset")
    assert scontrol.reserved(runner, acting.reservation("node2"))
    assert gathered("check:revalidation pass on node2")
    assert applied("resume node2")
    assert not scontrol.reserved(runner, acting.reservation("node2"))
    assert applied("mark node2")
    assert "ActiveFeatures=piolet_probation" in run("scontrol", "show", "node", "node2").stdout
    time.sleep(1.1)  # Slurm tells whole seconds: what ended in that of the resume is not known to have come after it
    for _ in range(2):
        run("srun", "--nodelist=node2", "true")
    assert gathered("node2: probation -> in: 2 clean jobs")
    assert applied("unmark node2")
    assert "piolet_probation" not in run("scontrol", "show", "node", "node2").stdout
    assert "Nothing to do" in fleet("apply")
    assert "entries, unchanged" in fleet("ledger", "verify")


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: f"{stage.verb} {stage.when} {stage.command} {stage.call}")
def test_a_kill_at_any_stage_neither_loses_nor_doubles_an_action(runner, settings, applying, stage) -> None:
    path, rules = Path(settings["PIOLET_FLEET_DATABASE"]), policy.load(Path(settings["PIOLET_FLEET_POLICY"]))
    orders = {Verb.DRAIN: (), Verb.RESUME: (Order.RETURN,), Verb.VET: (Order.VET,)}[stage.verb]
    drained(path, rules, runner, *orders)
    applying.killed_at(stage)
    assert steps(path, stage.verb) == ["begun"] * stage.begun
    assert applying.changes(stage.verb) == stage.changed
    assert ("finished what had been begun" in applying.whole()) is stage.begun
    assert steps(path, stage.verb) == ["begun", "done"]
    contents = [entry.content for entry in center.entries(path)]
    assert sum(isinstance(one, Transition) and one.after is AFTER[stage.verb] for one in contents) == 1
    applying.whole()
    assert steps(path, stage.verb) == ["begun", "done"]
    assert applying.changes(stage.verb) == 1
    assert center.verify_ledger(path)[0] == len(center.entries(path))


def test_a_reset_that_runs_when_the_fleet_is_killed_is_waited_for_and_not_repeated(
    runner, settings, applying, tmp_path
) -> None:
    path, rules = Path(settings["PIOLET_FLEET_DATABASE"]), policy.load(Path(settings["PIOLET_FLEET_POLICY"]))
    drained(path, rules, runner, Order.HOLD)
    (tmp_path / "wait").touch()
    applying.killed_when((tmp_path / "resets").exists)
    assert steps(path, Verb.RESET) == ["begun"]
    (tmp_path / "wait").unlink()
    assert "finished what had been begun: reset node3" in applying.whole()
    assert steps(path, Verb.RESET) == ["begun", "done"]
    assert (tmp_path / "resets").read_text() == "node3 GPU-node3\n"


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
    job = run("srun", "--nodelist=node2", "--ntasks=2", "sh", "-c", "echo verdict $PIOLET_NODE_VERDICT")
    told = "node2 is suspect: a fatal error of the GPU (xid:79)"
    assert job.stdout.count("verdict suspect") == 2
    assert job.stdout.count(f"piolet: {told}") == 1
    assert told in job.stderr
    assert "PIOLET_NODE_VERDICT" not in run("srun", "--nodelist=node1", "env").stdout
    log = small_lab.directory / "log" / "slurmd-node2.log"
    for _ in range(600):
        if "health_check success" in log.read_text() and told in log.read_text():
            break
        time.sleep(0.1)
    assert f"output:piolet: {told}" in log.read_text()
    assert reasons(runner) == {}
