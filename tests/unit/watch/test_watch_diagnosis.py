from __future__ import annotations

from graphlib import TopologicalSorter

import made_traces
import pytest
from made_traces import BENIGN, INCIDENTS, START_NS, Place, Trace

from piolet.core import plugins
from piolet.core.nouns import Interval
from piolet.logbook.records import Findings
from piolet.watch import quality
from piolet.watch.diagnosis import diagnose
from piolet.watch.diagnosis.causal import nearer_to_the_root
from piolet.watch.diagnosis.rules.workload import change_point

SEED = 7


def judged(trace: Trace, *, without: tuple[str, ...] = ()) -> tuple[Findings, dict[str, Place]]:
    reader, job, places = made_traces.generate(trace)
    with reader:
        for family in without:
            reader.database.execute(f'DELETE FROM "{family}"')  # noqa: S608 - a family of ours
        interval = Interval(START_NS, START_NS + trace.seconds * 10**9)
        found = quality.assess(reader, job, interval, ())
        return diagnose.judge(reader, job, interval, found), places


def small(incidents: tuple[str, ...] = (), benign: tuple[str, ...] = ()) -> Trace:
    return Trace(SEED, incidents, benign, nodes=6, gpus=2)


@pytest.mark.parametrize("incident", INCIDENTS)
def test_the_true_cause_comes_first(incident: str) -> None:
    found, places = judged(small((incident,)))
    first = found.findings[0]
    assert first.rule == incident
    assert first.evidence
    assert first.next_step
    assert first.refuted_by
    assert 0.5 <= first.confidence <= 1
    if incident == "slow-rank":
        assert (first.nodes, first.rank) == (
            (f"node{places[incident].node:03d}",),
            2 * places[incident].node + places[incident].gpu,
        )
    if first.gpu is not None:
        assert (first.nodes, first.gpu) == ((f"node{places[incident].node:03d}",), places[incident].gpu)


@pytest.mark.parametrize("benign", [(), *((each,) for each in BENIGN)])
def test_a_healthy_job_raises_no_alarm(benign: tuple[str, ...]) -> None:
    found, _ = judged(small((), benign))
    assert found.findings == ()


def test_what_follows_is_put_under_its_cause() -> None:
    found, places = judged(small(("xid",)))
    (only,) = found.findings
    assert only.gpu == places["xid"].gpu
    assert [effect.rpartition("(")[2] for effect in only.effects] == ["hang)"]
    assert "Xid 79" in only.reason
    assert {fact.value for fact in only.evidence} == {"79", "45"}


def test_two_independent_causes_are_two_findings() -> None:
    found, _ = judged(small(("noisy-neighbour", "ecc")))
    assert [each.rule for each in found.findings[:2]] == ["ecc", "noisy-neighbour"]


def test_rules_without_their_data_say_so() -> None:
    found, _ = judged(small(("link-flap",)), without=("nic", "cgroup"))
    missing = {each.rule: each.missing for each in found.unanswered}
    assert missing["link-flap"] == "nic.link_downs"
    assert missing["wrong-affinity"] == "cgroup.cpu_cores, cgroup.cpu_limit_cores"
    assert missing["checkpoint-stall"] == "events.phase"
    assert missing["first-failure"] == "logs"
    assert found.findings == ()


def test_thin_data_are_not_judged() -> None:
    short, _ = judged(Trace(SEED, ("ecc",), nodes=2, gpus=1, seconds=1200), without=("gpu",))
    assert {each.rule for each in short.unanswered} >= {"ecc", "slow-gpu", "hang"}


def test_every_rule_is_registered_and_tells_its_knowledge() -> None:
    found = plugins.load(diagnose.GROUP)
    assert not found.broken
    rules = {rule.name: rule for rule in found.loaded.values()}
    assert set(INCIDENTS) < set(rules)
    for rule in rules.values():
        assert all((rule.title, rule.knowledge, rule.source, rule.refuted_by, rule.next_step, rule.needs))
        assert rule.explains <= set(rules), rule.name


def test_no_rule_is_the_cause_of_its_own_causes() -> None:
    rules = {rule.name: rule for rule in plugins.load(diagnose.GROUP).loaded.values()}
    graph = TopologicalSorter(
        {
            cause.name: [name for name in cause.explains if nearer_to_the_root(cause, rules[name])]
            for cause in rules.values()
        }
    )
    assert len(tuple(graph.static_order())) == len(rules)


@pytest.mark.parametrize(
    ("values", "split"),
    [([10.0] * 20 + [8.0] * 20, 20), ([10.0] * 40, None), ([10.0] * 20 + [9.5] * 20, None), ([10.0, 1.0] * 20, None)],
)
def test_a_lasting_fall_is_found(values: list[float], split: int | None) -> None:
    assert change_point(values) == split
