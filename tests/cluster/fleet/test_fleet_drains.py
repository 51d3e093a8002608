"""The fleet on a real cluster: drains really are in Slurm, and a kill at any step neither loses nor doubles one."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from piolet.core.nodeset import NodeSet
from piolet.core.nouns import Gpu
from piolet.core.run import SystemRunner
from piolet.fleet import applying, center, gathering, policy
from piolet.fleet.evidence import Evidence, Kind, Source, made_id
from piolet.fleet.ledger import State, Step
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

    now_ns = center.time.time_ns()
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


class Killed(BaseException):
    """As if the process was killed here."""


class DyingRunner:
    """Dies before or after the command that changes a node."""

    def __init__(self, inner: SystemRunner, when: str) -> None:
        self._inner, self._when, self.updates = inner, when, 0

    def run(self, argv, **how):
        changes = list(argv[:2]) == ["scontrol", "update"]
        if changes and self._when == "before":
            raise Killed
        result = self._inner.run(argv, **how)
        self.updates += changes
        if changes and self._when == "after":
            raise Killed
        return result


@pytest.mark.parametrize("when", ["before", "after", "unwritten"])
def test_a_kill_at_any_step_neither_loses_nor_doubles_a_drain(runner, settings, when, monkeypatch) -> None:
    path, rules = Path(settings["PIOLET_FLEET_DATABASE"]), policy.load(Path(settings["PIOLET_FLEET_POLICY"]))
    dying = DyingRunner(runner, when)
    evidence = [
        Evidence(made_id(job), 10**18 + job, Kind.XID, "79", "node3", gpu="GPU-b", job=str(job), source=Source.NODE)
        for job in (1, 2)
    ]
    with center.opened(path, rules) as opened:
        opened.gather(evidence, 4)
        plan = opened.plan(gathering.cluster_now(runner))
        assert [action.node for action in plan.actions] == ["node3"]
        if when == "unwritten":  # begun is written, and nothing after it
            monkeypatch.setattr(applying, "carry_out", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            opened.apply(plan, dying)
        monkeypatch.undo()
    assert ("node3" in reasons(runner)) is (when == "after")
    counting = DyingRunner(runner, "never")
    with center.opened(path, rules) as opened:
        assert [step.node for step in opened.finish(counting)] == ["node3"]
        assert opened.fleet.node("node3").state is State.DRAINED
        assert opened.plan(gathering.cluster_now(runner)).actions == ()
    assert reasons(runner)["node3"].startswith("piolet: again")
    assert dying.updates + counting.updates == 1
    steps = [entry.content for entry in center.entries(path) if isinstance(entry.content, Step)]
    assert [step.phase.value for step in steps] == ["begun", "done"]


def test_an_administrators_drain_is_never_touched(runner, settings) -> None:
    path, rules = Path(settings["PIOLET_FLEET_DATABASE"]), policy.load(Path(settings["PIOLET_FLEET_POLICY"]))
    scontrol.drain(runner, NodeSet("node4"), "RAM, ask Ann")
    with center.opened(path, rules) as opened:
        opened.gather(
            [
                Evidence(made_id("a", job), 10**18 + job, Kind.XID, "79", "node4", gpu="GPU-c", job=str(job))
                for job in (1, 2)
            ],
            4,
        )
        plan = opened.plan(gathering.cluster_now(runner))
        assert plan.actions == ()
        assert plan.withheld[0].why == "drained by somebody else: RAM, ask Ann"
    assert reasons(runner) == {"node4": "RAM, ask Ann"}
