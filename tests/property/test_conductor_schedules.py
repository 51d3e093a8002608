"""The conductor against a model: random faults of nodes, programs and Slurm, attempt after attempt.

The machine is made up; judging, choosing, outcomes and logbooks are the real ones.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from piolet.core.errors import PioletError, ToolTimeout
from piolet.core.nodeset import NodeSet
from piolet.core.nouns import CheckResult, Status
from piolet.core.settings import Settings
from piolet.data.staging.choosing import Choice
from piolet.data.staging.stage import Outcome
from piolet.launch import conductor, session
from piolet.launch.copies import Copy
from piolet.launch.doom import Sign
from piolet.launch.program import Ended, Failure
from piolet.launch.request import RunRequest
from piolet.logbook import layout, records
from piolet.vet import judge_answers
from piolet.vet.protocol import PlannedCheck, Protocol

PROTOCOL = Protocol("p", (PlannedCheck("a", "mounts", ""), PlannedCheck("b", "gpu_count", "")))
GOOD = "good"
NO_COPY = "takes no copy"
"""Vetting finds nothing wrong with it."""

COPY = Copy(Path(__file__), Path("/memory/copy"))
FAULTS = ("fails", "unknown", "silent", "torn", "twice", "lacks a check", "under another name")
ENDS = ("well", "error", "killed", "node fails", "xid", "nan", "hang", "slurm is away")
BLAMELESS = {"error", "killed", "nan", "hang"}


def answer(node: str, state: str) -> str:
    """What a node in this state prints."""
    status = {"fails": Status.FAIL, "unknown": Status.UNKNOWN}.get(state, Status.PASS)
    checks = [CheckResult("a", node, status, state), CheckResult("b", node, Status.PASS, "fine")]
    said = {"piolet_vet": 1, "node": node, "checks": [asdict(each) for each in checks], "gpus": []}
    if state == "lacks a check":
        said["checks"].pop()
    if state == "under another name":
        said["node"] = "elsewhere"
    text = json.dumps(said)
    return {"silent": "", "torn": text[: len(text) // 2], "twice": text + text}.get(state, text)


@dataclass
class Cluster:
    """Nodes with their states, how the program ends in each attempt, and what has been done to whom."""

    states: dict[str, str]
    ends: list[str]
    refuses_shrinking: bool
    refuses_submission: bool
    ran_on: list[NodeSet] = field(default_factory=list)
    allocations: list[NodeSet] = field(default_factory=list)
    waiting: list[RunRequest] = field(default_factory=list)

    def allocate(self, request: RunRequest) -> NodeSet:
        free = NodeSet(self.states) - NodeSet(request.exclude)
        nodes = free.first(request.nodes + request.spares)
        self.allocations.append(nodes)
        return nodes


@dataclass
class MadeUp:
    """One allocation of the cluster, as the conductor sees it."""

    cluster: Cluster
    nodes: NodeSet
    end: str

    @property
    def batch_node(self) -> str:
        return next(iter(self.nodes))

    def simulated(self):
        return ("nodes",)

    def vet(self, protocol):
        texts = [answer(node, self.cluster.states[node]) for node in self.nodes]
        return judge_answers(self.nodes, texts, protocol)

    def give_back(self, nodes):
        return NodeSet() if self.cluster.refuses_shrinking else nodes - NodeSet(self.batch_node)

    @contextmanager
    def staged(self, used, _):
        lost = {node: "its disk hangs" for node in used if self.cluster.states[node] == NO_COPY}
        yield Outcome(7, used - NodeSet(list(lost)), NodeSet(), lost, Choice(direct=False, reason="as asked"), 1.0, {})

    def run(self, used, *_):
        self.cluster.ran_on.append(used)
        last = list(used)[-1]
        failures = {
            "error": Ended(7, Failure(last, 0, "Exited with exit code 7")),
            "killed": Ended(137, Failure(last, 0, "Killed")),
            "node fails": Ended(1, Failure(last, None, "Node failure")),
            "xid": Ended(143, doomed=Sign("xid", f"Xid 79 on {last}:0", last)),
            "nan": Ended(143, doomed=Sign("nan", "no number")),
            "hang": Ended(143, doomed=Sign("hang", "all wait", last)),
        }
        if self.end == "slurm is away":
            raise ToolTimeout(["srun"], 5)
        return failures.get(self.end, Ended(0))

    def ended_as(self):
        return "CANCELLED"

    def submit_again(self, request, bad):
        if self.cluster.refuses_submission:
            raise PioletError("sbatch is not allowed here")
        exclude = str(NodeSet(request.exclude) | bad)
        restarts, attempt = request.restarts - 1, request.attempt + 1
        self.cluster.waiting.append(replace(request, exclude=exclude, restarts=restarts, attempt=attempt))
        return str(len(self.cluster.allocations) + 1)


@st.composite
def schedules(draw):
    size = draw(st.integers(2, 8))
    nodes = draw(st.integers(1, size))
    copies = draw(st.sampled_from([(), (COPY,), (COPY, Copy(COPY.source, Path("/memory/another")))]))
    faults = (*FAULTS, NO_COPY) if copies else FAULTS
    state = st.one_of(st.just(GOOD), st.just(GOOD), st.sampled_from(faults))
    cluster = Cluster(
        {f"n{number}": draw(state) for number in range(1, size + 1)},
        draw(st.lists(st.sampled_from(ENDS), min_size=5, max_size=5)),
        draw(st.booleans()),
        draw(st.integers(0, 4)) == 0,
    )
    spares, restarts = draw(st.integers(0, size - nodes)), draw(st.integers(0, 4))
    asked = {"nodes": nodes, "spares": spares, "restarts": restarts, "copies": copies}
    return cluster, RunRequest(("x",), protocol="p", attempt=1, **asked)


def conducted(cluster: Cluster, request: RunRequest, root: Path) -> list[records.Outcome]:
    """Run the job, and those that do it again, as long as the cluster has nodes for them; gives the outcomes."""
    outcomes = []
    cluster.waiting.append(request)
    while cluster.waiting:
        asked = cluster.waiting.pop()
        nodes = cluster.allocate(asked)
        if len(nodes) < asked.nodes + asked.spares:
            break  # it waits in the queue for ever, as Slurm has it
        job = str(len(cluster.allocations))
        machine = MadeUp(cluster, nodes, cluster.ends[len(outcomes)])
        logbook = layout.create(root, "made-up", job)
        run = session.begin(asked, machine, logbook, Settings(), cluster="made-up", job_id=job)
        try:
            status = conductor.conduct(run, PROTOCOL)
        except PioletError as error:
            status = error.exit_status
        outcome = records.read_outcome(logbook.outcome)
        assert outcome is not None, "every end has an outcome"
        assert outcome.exit_status == status
        outcomes.append(outcome)
        check_vetting(cluster, records.read_job(logbook.job))
    return outcomes


def check_vetting(cluster: Cluster, job: records.JobRecord) -> None:
    refused = {each.node: each.reason for each in job.refused}
    used = {each.node for each in job.allocation if each.used}
    assert all(cluster.states[node] != GOOD for node in refused), "no good node is refused"
    assert all(refused.values()), "nor any without a reason"
    assert all(cluster.states[node] in {GOOD, NO_COPY} for node in used), "no bad node is used"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedules())
def test_no_bad_node_passes_no_good_one_is_refused_and_every_job_ends(monkeypatch, schedule):
    cluster, request = schedule
    monkeypatch.setattr(conductor, "_after", lambda *_: [])  # the report is a process of its own
    with tempfile.TemporaryDirectory() as directory:
        outcomes = conducted(cluster, request, Path(directory))

    assert len(outcomes) <= request.restarts + 1
    for nodes in cluster.ran_on:
        assert len(nodes) == request.nodes
        assert all(cluster.states[node] == GOOD for node in nodes)
    for before, after in zip(outcomes, cluster.allocations[1:], strict=False):
        assert before.domain is records.Domain.INFRASTRUCTURE, "only infrastructure is tried again"
        assert before.bad_nodes
        assert not NodeSet(before.bad_nodes) & after, "and without what was bad"
    for outcome in outcomes[:-1]:
        assert outcome.state != "COMPLETED"
    ran = [end for end, outcome in zip(cluster.ends, outcomes, strict=False) if outcome.first_failing_rank is not None]
    if ran and ran[-1] in BLAMELESS:
        assert not outcomes[-1].bad_nodes, "a program's error is nobody else's"
        assert not outcomes[-1].next_job


@pytest.mark.parametrize("end", sorted(BLAMELESS))
def test_what_a_program_does_is_never_tried_again(monkeypatch, tmp_path, end):
    monkeypatch.setattr(conductor, "_after", lambda *_: [])
    cluster = Cluster(dict.fromkeys(["n1", "n2"], GOOD), [end] * 5, refuses_shrinking=False, refuses_submission=False)

    [outcome] = conducted(cluster, RunRequest(("x",), protocol="p", restarts=3, attempt=1), tmp_path)

    assert (outcome.bad_nodes, outcome.next_job) == ((), "")
