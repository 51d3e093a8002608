"""Stages, severities, repetition and criteria: what a protocol says beside the parameters of its checks."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.errors import ConfigError
from piolet.core.nodeset import NodeSet
from piolet.core.nouns import CheckResult, Severity, Status
from piolet.core.settings import Settings
from piolet.vet import judge_answers, load_protocol
from piolet.vet.answers import merged
from piolet.vet.check import Judgement
from piolet.vet.node import repeated
from piolet.vet.peers import measured
from piolet.vet.protocol import Comparison, Criteria, PlannedCheck, Protocol, Repeat, from_json

SLOWEST = Criteria("higher", peers=Comparison(mad=5, margin=0.1))


def result(value, node="n0", check="speed"):
    return CheckResult(check, node, Status.PASS, "measured", value, unit="GB/s", time_ns=1)


def load(tmp_path: Path, text: str) -> Protocol:
    path = tmp_path / "protocol.yaml"
    path.write_text(text, encoding="utf-8")
    return load_protocol(str(path), Settings())


def answers(values, protocol):
    return judge_answers(
        NodeSet(values),
        [
            json.dumps({"piolet_vet": 1, "node": node, "gpus": [], "checks": [asdict(result(value, node))]})
            for node, value in values.items()
        ],
        protocol,
    )


@pytest.mark.parametrize(
    ("value", "criteria", "status"),
    [
        (10, Criteria(at_least=10), Status.PASS),
        (9, Criteria(at_least=10), Status.FAIL),
        (11, Criteria(at_most=10), Status.FAIL),
        ("fast", Criteria(at_least=10), Status.UNKNOWN),
        (None, Criteria(at_least=10), Status.UNKNOWN),
        (float("nan"), Criteria(at_least=10), Status.UNKNOWN),
    ],
)
def test_absolute_criteria(value, criteria, status):
    found = measured(result(value), criteria, [])

    assert found.status is status
    assert bool(found.remedy) == (status is not Status.PASS)


def test_the_node_that_is_three_times_slower_than_its_peers_is_refused_and_no_other():
    protocol = Protocol("p", (PlannedCheck("speed", "x", "", criteria=SLOWEST),))

    verdict = answers({"n1": 100, "n2": 103, "n3": 33, "n4": 98, "n5": 101}, protocol)

    assert verdict.ready == NodeSet("n[1-2,4-5]")
    assert "33 GB/s: the median of 5 nodes is 100" in verdict.refused[0].reason


def test_too_few_nodes_compare_nobody_and_say_so():
    protocol = Protocol("p", (PlannedCheck("speed", "x", "", criteria=SLOWEST),))

    verdict = answers({"n1": 100, "n2": 3}, protocol)

    assert verdict.ready == NodeSet("n[1-2]")
    assert all("too few nodes to compare: 2 of 4" in each.reason for each in verdict.results)


@given(st.lists(st.floats(1, 1e6), min_size=4, max_size=40), st.sampled_from(["higher", "lower"]))
def test_no_value_within_the_margin_of_the_median_is_refused_and_the_better_side_never(values, better):
    criteria = Criteria(better, peers=Comparison(mad=5, margin=0.1))
    usual = sorted(values)[len(values) // 2] if len(values) % 2 else None

    for value in values:
        found = measured(result(value), criteria, values)
        if found.status is Status.FAIL:
            assert value < found.threshold if better == "higher" else value > found.threshold
            assert usual is None or abs(value - usual) > 0.0999 * usual


def test_a_warning_is_kept_and_refuses_nobody():
    protocol = Protocol(
        "p", (PlannedCheck("speed", "x", "", criteria=Criteria(at_least=50), severity=Severity.WARNING),)
    )

    verdict = answers({"n1": 100, "n2": 33}, protocol)

    assert verdict.ready == NodeSet("n[1-2]")
    assert [each.status for each in verdict.results if each.node == "n2"] == [Status.FAIL]
    assert {each.severity for each in verdict.results} == {Severity.WARNING}


P, F, U = (Judgement(status, str(status), 1.0) for status in (Status.PASS, Status.FAIL, Status.UNKNOWN))


@pytest.mark.parametrize(
    ("said", "passes", "status", "asked"),
    [
        ([P, P, P], "all", Status.PASS, 3),
        ([P, F, P], "all", Status.FAIL, 2),
        ([F, P, P], "most", Status.PASS, 3),
        ([F, F, P], "most", Status.FAIL, 2),
        ([F, F, P], "one", Status.PASS, 3),
        ([P, F, F], "one", Status.PASS, 1),
        ([U, F, U], "one", Status.FAIL, 3),
        ([U, U, U], "one", Status.UNKNOWN, 3),
    ],
)
def test_repetitions_end_as_soon_as_the_answer_is_certain(said, passes, status, asked):
    waiting, pauses = iter(said), []

    found = repeated(lambda: next(waiting), Repeat(3, passes, 2.0), pauses.append)

    assert found.status is status
    assert pauses == [2.0] * (asked - 1)
    assert len(list(waiting)) == 3 - asked


def test_the_median_of_repetitions_stands_for_them():
    values = iter([5.0, 1.0, 3.0])

    found = repeated(lambda: Judgement(Status.PASS, "", next(values)), Repeat(3))

    assert found.value == 3.0


def test_stages_come_in_order_and_all_keys_survive_the_way_to_the_node(tmp_path):
    protocol = load(
        tmp_path,
        "evals:\n- {type: gpu_count}\n- {type: memory_bandwidth, stage: load, severity: warning, timeout: 7,"
        " repeat: {times: 3, passes: most, pause: 1}, criteria: {at_least: 2, peers: {mad: 3}}}\n- {type: mounts}\n",
    )

    assert [[check.type for check in stage.checks] for stage in protocol.stages()] == [
        ["gpu_count", "mounts"],
        ["memory_bandwidth"],
    ]
    check = protocol.checks[1]
    assert (check.quiet, check.severity, check.longest_s) == (True, Severity.WARNING, 24)
    assert check.criteria == Criteria("higher", at_least=2, peers=Comparison(mad=3))
    arrived = from_json(protocol.to_json())
    assert arrived.checks[1] == replace(check, criteria=None), "criteria are judged where all answers are"
    assert arrived.checks[1].repeat == Repeat(3, "most", 1)


def test_an_included_check_is_replaced_by_one_of_its_name(tmp_path):
    (tmp_path / "site.yaml").write_text("evals:\n- {name: a, type: mounts}\n- {name: b, type: gpu_count}\n")

    protocol = load(tmp_path, "include: [quick, ./site.yaml]\nevals:\n- {name: a, type: gpu_xid}\n")

    assert {check.name: check.type for check in protocol.checks} == {
        "GPU count": "gpu_count", "GPU Xid": "gpu_xid", "mounts": "mounts", "a": "gpu_xid", "b": "gpu_count",
    }  # fmt: skip
    assert [check.name for check in load(tmp_path, "include: quick\n").checks] == ["GPU count", "GPU Xid", "mounts"]


@pytest.mark.parametrize(
    ("entry", "what", "remedy"),
    [
        ("severity: bad", "severity cannot be 'bad'", "only error refuses"),
        ("stage: 3", "the stage is not text", "name"),
        ("repeat: 0", "repeat cannot be 0", "1 to 1000"),
        ("repeat: many", "repeat", "correct"),
        ("repeat: {times: 2, passes: some}", "passes cannot be 'some'", "most"),
        ("repeat: {tmes: 2}", 'repeat has no "tmes"', '"times"'),
        ("criteria: {}", "ask nothing", "at_least"),
        ("criteria: {at_lest: 2}", 'criteria has no "at_lest"', '"at_least"'),
        ("criteria: {at_least: fast}", "at_least", "correct"),
        ("criteria: {peers: {mad: 5}}", "whether more or less is better", "better: higher"),
        ("criteria: 5", "criteria cannot be", "mapping"),
    ],
)
def test_what_is_wrong_with_a_key_is_said(tmp_path, entry, what, remedy):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"evals:\n- type: gpu_count\n  {entry}\n")

    assert what in caught.value.what
    assert remedy in caught.value.remedy
    assert ":3" in caught.value.where


def test_protocols_that_include_each_other_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match="without end"):
        load(tmp_path, "include: [./protocol.yaml]\n")


def test_a_later_stage_adds_to_the_verdict_of_the_one_before():
    protocol = Protocol("p", (PlannedCheck("speed", "x", "", criteria=Criteria(at_least=50)),))
    before = answers({"n1": 100, "n2": 33, "n3": 60}, protocol)

    verdict = merged(before, answers({"n1": 100, "n3": 10}, protocol))

    assert verdict.nodes == NodeSet("n[1-3]")
    assert verdict.ready == NodeSet("n1")
    assert [refusal.node for refusal in verdict.refused] == ["n2", "n3"]
    assert len(verdict.results) == 5
