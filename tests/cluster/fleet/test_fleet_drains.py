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
from piolet.core.nouns import Gpu
from piolet.core.run import SystemRunner
from piolet.fleet import center, gathering, policy
from piolet.fleet.evidence import Evidence, Kind, made_id
from piolet.fleet.ledger import Instruction, Order, State, Step, Verb
from piolet.lab import Lab, Spec, up
from piolet.logbook import layout, records
from piolet.logbook.writer import SegmentWriter
from piolet.tools.slurm import scontrol, sinfo
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
    for node in reasons(runner):
        scontrol.resume(runner, NodeSet(node))


@pytest.fixture
def settings(tmp_path) -> dict[str, str]:
    (tmp_path / "policy.toml").write_text(POLICY)
    return {"PIOLET_FLEET_DATABASE": str(tmp_path / "fleet.db"), "PIOLET_FLEET_POLICY": str(tmp_path / "policy.toml")}


def reasons(runner: SystemRunner) -> dict[str, str]:
    return {node.name: node.reason for node in sinfo.nodes(runner) if NodeFlag.DRAIN in node.state.flags}


def fatal(node: str, job: int) -> Evidence:
    """An Xid 79 of the GPU of `node`, which the site itself saw."""
    return Evidence(made_id(node, job), 10**18 + job, Kind.XID, "79", node, gpu=f"GPU-{node}", job=str(job))


def logbook_with_xid(root: Path, job: str, node: str, time_ns: int) -> None:
    made = layout.create(root, "lab", job)
    gpu = Gpu(0, "GPU-broken", simulated=True)
    records.write_job(
        made.job,
        records.JobRecord(job, "lab", "ann", ("train",), allocation=(records.NodeAllocation(node, (gpu,)),)),
    )
    writer = SegmentWriter(made, node)
    row = {"time_ns": time_ns, "node": node, "gpu": 0, "uuid": gpu.uuid, "kind": "xid", "code": "79"}
    writer.append("events", row | {"severity": "error", "message": "GPU has fallen off the bus"})
    writer.close()


def test_from_two_logbooks_to_a_drain_in_slurm_and_back(small_lab, runner, settings, tmp_path, commands_on) -> None:
    run = commands_on(small_lab)

    def fleet(*argv: str, check: bool = True) -> str:
        return run("piolet", "fleet", *argv, env=settings, check=check).stdout

    fleet("gather")  # the jobs of other tests
    now_ns = time.time_ns()
    logbook_with_xid(tmp_path / "root", "1", "node2", now_ns - 10**12)
    logbook_with_xid(tmp_path / "root", "2", "node2", now_ns - 10**9)
    assert "2 new pieces of evidence" in fleet("gather", str(tmp_path / "root"))
    assert "0 new pieces of evidence" in fleet("gather", str(tmp_path / "root"))
    assert "withheld: drain node2: waits for `piolet fleet approve node2`" in fleet("plan")
    fleet("approve", "node2", "--reason", "seen twice")
    assert "drain node2" in fleet("apply", "--dry-run")
    assert reasons(runner) == {}
    fleet("apply")
    assert reasons(runner)["node2"].startswith("piolet: again: fatal errors of the same GPU on GPU-broken, 2 times")
    assert "Nothing to do" in fleet("apply")
    assert "piolet fleet return node2" in fleet("explain", "node2")
    fleet("return", "node2")
    assert "resume node2" in fleet("apply")
    assert reasons(runner) == {}
    for _ in range(3):
        run("srun", "--nodelist=node2", "true")
    told = fleet("gather")
    assert "3 new" in told
    assert "node2: in" in fleet("explain", "node2").replace(" is in", ": in")
    assert "entries, unchanged" in fleet("ledger", "verify")
    assert "ordered return of node2" in fleet("ledger", "print")


WRAPPER = """#!/bin/sh
# Slurm's command {name}, which stops for good at its Nth call, before or after it has run, if the file `stop` says so.
cd {directory} || exit
echo "{name} $*" >> calls
call="{name} $(grep -c "^{name} " calls)"
stop() {{ if [ "$call $1" = "$(cat stop)" ]; then echo $$ > stopped; exec sleep 1000; fi; }}
stop before
{real} "$@" || exit
stop after
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where `piolet fleet apply` is killed: at the Nth call of a command of Slurm, before or after it has run."""

    command: str
    call: int
    when: str
    begun: bool
    changed: bool


# apply looks at Slurm (sinfo 1), plans, writes "begun", looks again (sinfo 2), changes Slurm (scontrol 1) and then
# writes "done".
STAGES = [
    Stage("sinfo", 1, "before", begun=False, changed=False),
    Stage("sinfo", 2, "before", begun=True, changed=False),
    Stage("scontrol", 1, "before", begun=True, changed=False),
    Stage("scontrol", 1, "after", begun=True, changed=True),
]


@dataclass(frozen=True, slots=True)
class Applying:
    """`piolet fleet apply` with Slurm's commands wrapped, to be killed or left to its end."""

    directory: Path
    environment: dict[str, str]

    def killed_at(self, stage: Stage) -> None:
        """Run it until it is at `stage`, then kill -9 it and the command that it waits for."""
        self._prepare(f"{stage.command} {stage.call} {stage.when}")
        process = subprocess.Popen(["piolet", "fleet", "apply"], env=self.environment, stdout=subprocess.DEVNULL)
        while not (self.directory / "stopped").exists() or not (self.directory / "stopped").read_text():
            assert process.poll() is None, f"it ended before {stage}"
            time.sleep(0.02)
        process.kill()
        process.wait()
        os.kill(int((self.directory / "stopped").read_text()), signal.SIGKILL)

    def whole(self) -> str:
        """Run it to its end."""
        self._prepare("nowhere")
        argv = ["piolet", "fleet", "apply"]
        return subprocess.run(argv, check=True, env=self.environment, capture_output=True, text=True, timeout=60).stdout

    def _prepare(self, stop: str) -> None:
        (self.directory / "stopped").unlink(missing_ok=True)
        with (self.directory / "all-calls").open("a") as kept:
            kept.write((self.directory / "calls").read_text())
        (self.directory / "calls").write_text("")
        (self.directory / "stop").write_text(stop)

    def updates(self, state: str) -> int:
        """How often Slurm was told to set `state`."""
        told = (self.directory / "all-calls").read_text() + (self.directory / "calls").read_text()
        return len(re.findall(f"(?mi)^scontrol update .*state={state}", told))


@pytest.fixture
def applying(small_lab, settings, tmp_path, commands_on) -> Applying:
    directory = tmp_path / "wrapped"
    directory.mkdir()
    for name in ("calls", "all-calls"):
        (directory / name).touch()
    for name in ("sinfo", "scontrol"):
        wrapper = directory / "bin" / name
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(WRAPPER.format(name=name, real=shutil.which(name), directory=directory))
        wrapper.chmod(0o755)
    environment = commands_on(small_lab).environment() | settings
    return Applying(directory, environment | {"PATH": f"{directory / 'bin'}:{environment['PATH']}"})


def steps(path: Path, verb: Verb) -> list[str]:
    contents = [entry.content for entry in center.entries(path)]
    return [one.phase.value for one in contents if isinstance(one, Step) and one.verb is verb]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: f"{stage.when} {stage.command} {stage.call}")
def test_a_kill_at_any_stage_neither_loses_nor_doubles_an_action(runner, settings, applying, stage) -> None:
    path, rules = Path(settings["PIOLET_FLEET_DATABASE"]), policy.load(Path(settings["PIOLET_FLEET_POLICY"]))
    with center.opened(path, rules) as opened:
        opened.gather([fatal("node3", job) for job in (1, 2)], 4)
    killed_and_finished(applying, stage, path, Verb.DRAIN, lambda: "node3" in reasons(runner))
    assert center.look(path).node("node3").state is State.DRAINED
    assert reasons(runner)["node3"].startswith("piolet: again")
    with center.opened(path, rules) as opened:
        opened.instruct(Instruction(Order.RETURN, "node3", "ann"))
    killed_and_finished(applying, stage, path, Verb.RESUME, lambda: "node3" not in reasons(runner))
    assert center.look(path).node("node3").state is State.PROBATION
    assert center.verify_ledger(path)[0] == len(center.entries(path))


def killed_and_finished(applying: Applying, stage: Stage, path: Path, verb: Verb, changed: Callable[[], bool]) -> None:
    """Kill `apply` at `stage` of `verb`, then run it again, twice: what was begun is finished, once."""
    applying.killed_at(stage)
    assert steps(path, verb) == ["begun"] * stage.begun
    assert changed() is stage.changed
    before = applying.updates(verb.value)
    assert ("finished what had been begun" in applying.whole()) is stage.begun
    assert steps(path, verb) == ["begun", "done"]
    assert changed()
    assert applying.updates(verb.value) - before == (not stage.changed)
    assert "Nothing to do" in applying.whole()
    assert steps(path, verb) == ["begun", "done"]


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
