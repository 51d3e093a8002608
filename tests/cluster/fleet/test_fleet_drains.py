"""The fleet on a real cluster: drains really are in Slurm, and a kill at any step neither loses nor doubles one."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from piolet.core.nodeset import NodeSet
from piolet.core.run import SystemRunner
from piolet.fleet import applying as acting
from piolet.fleet import center, gathering, policy
from piolet.fleet.applying import AFTER
from piolet.fleet.evidence import Evidence, Kind, made_id
from piolet.fleet.ledger import Instruction, Order, Step, Transition, Verb
from piolet.lab import Lab, Spec, up
from piolet.tools.slurm import scontrol, sinfo, squeue
from piolet.tools.slurm.states import NodeFlag

pytestmark = pytest.mark.cluster

POLICY = """
[limits]
out_fraction = 0.5
group_fraction = 0.5
[[rule]]
name = "again"
summary = "fatal errors of the same GPU"
source = "test"
kind = "xid"
code = ["79"]
count = 2
per = "gpu"
independent = "job"
to = "drained"
[course]
clean_jobs = 2
[healing]
ladder = ["reset"]
reset = ["sh", "RESET", "{node}", "{gpu}"]
vet = ["piolet", "vet", "run", "--protocol", "{protocol}"]
"""

# The site's command: it notes each call, waits while there is a file `wait`, and does what a reset of the GPU does.
RESET = """
cd {directory} && echo "$*" >> resets
while [ -e wait ]; do sleep 0.05; done
exec piolet lab gpu --name {lab} "$1:0" --clear
"""


@pytest.fixture(scope="module")
def small_lab(machine) -> Iterator[Lab]:  # noqa: ARG001 - a fixture for its effect
    lab = up(Spec(name=f"fleet-{secrets.token_hex(3)}", nodes=4, gpus=1))
    yield lab
    lab.down()


@pytest.fixture
def runner(small_lab) -> Iterator[SystemRunner]:
    runner = SystemRunner(small_lab.environment())
    yield runner
    runner.run(["scancel", "--user=root"], timeout=60)
    while squeue.jobs(runner, states=["PENDING", "RUNNING", "COMPLETING"]):
        time.sleep(0.05)
    for node in ("node2", "node3"):
        if scontrol.reserved(runner, acting.reservation(node)):
            scontrol.release(runner, acting.reservation(node))
    for node in reasons(runner):
        scontrol.resume(runner, NodeSet(node))


@pytest.fixture
def settings(tmp_path, small_lab) -> dict[str, str]:
    (tmp_path / "reset.sh").write_text(RESET.format(directory=tmp_path, lab=small_lab.name))
    (tmp_path / "policy.toml").write_text(POLICY.replace("RESET", str(tmp_path / "reset.sh")))
    return {"PIOLET_FLEET_DATABASE": str(tmp_path / "fleet.db"), "PIOLET_FLEET_POLICY": str(tmp_path / "policy.toml")}


def reasons(runner: SystemRunner) -> dict[str, str]:
    return {node.name: node.reason for node in sinfo.nodes(runner) if NodeFlag.DRAIN in node.state.flags}


def fatal(node: str, job: int) -> Evidence:
    """An Xid 79 of the GPU of `node`, which the site itself saw."""
    return Evidence(made_id(node, job), 10**18 + job, Kind.XID, "79", node, gpu=f"GPU-{node}", job=str(job))


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
    for _ in range(2):
        run("srun", "--nodelist=node2", "true")
    assert gathered("node2: probation -> in: 2 clean jobs")
    assert applied("unmark node2")
    assert "piolet_probation" not in run("scontrol", "show", "node", "node2").stdout
    assert "Nothing to do" in fleet("apply")
    assert "entries, unchanged" in fleet("ledger", "verify")


WRAPPER = """#!/bin/sh
# Slurm's command {name}, which stops for good at its Nth call, before or after it has run, if the file `stop` says so.
cd {directory} || exit
echo "{name} $*" >> calls
call="{name} $(grep -c "^{name} " calls)"
stop() {{ if [ "$call $1" = "$(cat stop)" ]; then echo $$ > stopped; exec sleep 1000; fi; }}
stop before
{real} "$@" || exit
echo "{name} $*" >> ran
stop after
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where `piolet fleet apply` is killed: at the Nth call of a command of Slurm, before or after it has run.

    `changed`: what the action is to change in Slurm is changed by then.
    """

    verb: Verb
    command: str
    call: int
    when: str
    begun: bool = True
    changed: bool = False


# apply looks at Slurm (sinfo 1), plans, writes "begun", looks at the node (scontrol 1), changes Slurm and then writes
# "done". To vet it looks for a reservation (scontrol 2), makes it (3), resumes the node (4), looks for the job and
# submits it.
STAGES = [
    Stage(Verb.DRAIN, "sinfo", 1, "before", begun=False),
    Stage(Verb.DRAIN, "scontrol", 1, "before"),
    Stage(Verb.DRAIN, "scontrol", 2, "before"),
    Stage(Verb.DRAIN, "scontrol", 2, "after", changed=True),
    Stage(Verb.RESUME, "scontrol", 2, "before"),
    Stage(Verb.RESUME, "scontrol", 2, "after", changed=True),
    Stage(Verb.VET, "scontrol", 3, "after"),
    Stage(Verb.VET, "scontrol", 4, "after"),
    Stage(Verb.VET, "sbatch", 1, "before"),
    Stage(Verb.VET, "sbatch", 1, "after", changed=True),
]
CHANGES = {
    Verb.DRAIN: "scontrol update .*state=drain",
    Verb.RESUME: "scontrol update .*state=resume",
    Verb.VET: "sbatch",
}
"""The command that changes what an action is for: it must run once."""


@dataclass(frozen=True, slots=True)
class Applying:
    """`piolet fleet apply` with Slurm's commands wrapped, to be killed or left to its end."""

    directory: Path
    environment: dict[str, str]

    def killed_at(self, stage: Stage) -> None:
        """Run it until it is at `stage`, then kill -9 it and the command that it waits for."""
        stopped = self.directory / "stopped"
        self.killed_when(
            lambda: stopped.exists() and bool(stopped.read_text()), f"{stage.command} {stage.call} {stage.when}"
        )
        os.kill(int(stopped.read_text()), signal.SIGKILL)

    def killed_when(self, there: Callable[[], bool], stop: str = "nowhere") -> None:
        """Run it until it is `there`, then kill -9 it alone."""
        self._prepare(stop)
        process = subprocess.Popen(["piolet", "fleet", "apply"], env=self.environment, stdout=subprocess.DEVNULL)
        while not there():
            assert process.poll() is None, f"it ended before {stop}"
            time.sleep(0.02)
        process.kill()
        process.wait()

    def whole(self) -> str:
        """Run it to its end."""
        self._prepare("nowhere")
        argv = ["piolet", "fleet", "apply"]
        return subprocess.run(argv, check=True, env=self.environment, capture_output=True, text=True, timeout=60).stdout

    def _prepare(self, stop: str) -> None:
        (self.directory / "stopped").unlink(missing_ok=True)
        (self.directory / "calls").write_text("")
        (self.directory / "stop").write_text(stop)

    def changes(self, verb: Verb) -> int:
        """How often Slurm was told what `verb` is for."""
        return len(re.findall(f"(?mi)^{CHANGES[verb]}", (self.directory / "ran").read_text()))


@pytest.fixture
def applying(small_lab, settings, tmp_path, commands_on) -> Applying:
    directory = tmp_path / "wrapped"
    directory.mkdir()
    for name in ("calls", "ran"):
        (directory / name).touch()
    for name in ("sinfo", "scontrol", "sbatch", "squeue"):
        wrapper = directory / "bin" / name
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(WRAPPER.format(name=name, real=shutil.which(name), directory=directory))
        wrapper.chmod(0o755)
    environment = commands_on(small_lab).environment() | settings
    return Applying(directory, environment | {"PATH": f"{directory / 'bin'}:{environment['PATH']}"})


def steps(path: Path, verb: Verb) -> list[str]:
    contents = [entry.content for entry in center.entries(path)]
    return [one.phase.value for one in contents if isinstance(one, Step) and one.verb is verb]


def drained(path: Path, rules: policy.Policy, runner: SystemRunner, *orders: Order) -> None:
    """Make a fleet that asks for a drain of node3, or has drained it and has `orders` for it, once it is at rest."""
    while (here := gathering.node_now(runner, "node3")) is None or here.busy or not here.answers:
        time.sleep(0.1)
    with center.opened(path, rules) as opened:
        opened.gather([fatal("node3", job) for job in (1, 2)], 4)
        if orders:
            opened.apply(opened.plan(gathering.cluster_now(runner)), opened.hands(runner))
        for order in orders:
            opened.instruct(Instruction(order, "node3", "ann"))


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
