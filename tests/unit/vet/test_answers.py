"""From what nodes printed to a verdict, and from a verdict to a choice."""

import json
from dataclasses import asdict, replace

import pytest

from piolet.core.errors import Refused
from piolet.core.nodeset import NodeSet
from piolet.core.nouns import CheckResult, Gpu, Status
from piolet.core.run import Result
from piolet.vet import choose, judge_answers
from piolet.vet.protocol import PlannedCheck, Protocol
from piolet.vet.step import silences, tasks_output

NODES = NodeSet("node[1-4]")
PROTOCOL = Protocol("p", (PlannedCheck("a", "gpu_count", ""), PlannedCheck("b", "mounts", "")))
PASSED = CheckResult("a", "", Status.PASS, "fine", time_ns=1)


def said(node: str, a: Status = Status.PASS, b: Status = Status.PASS, **changes: object) -> str:
    results = [
        replace(PASSED, node=node, status=a, reason=f"a is {a}"),
        replace(PASSED, check="b", node=node, status=b),
    ]
    value = {"piolet_vet": 1, "node": node, "ready": True, "checks": [asdict(each) for each in results], "gpus": []}
    return json.dumps(value | changes)


def test_good_answers_make_nodes_ready_and_keep_what_they_hold():
    gpu = Gpu(0, "GPU-1", "H100", 1, simulated=True)

    verdict = judge_answers(NODES, [said(node, gpus=[asdict(gpu)]) for node in NODES], PROTOCOL)

    assert verdict.ready == NODES
    assert verdict.refused == ()
    assert not verdict.unknown
    assert verdict.inventory["node3"] == (gpu,)
    assert len(verdict.results) == 8


NOT_READY = {
    "absent": ([], True, "no answer: asleep"),
    "failed": ([said("node2", a=Status.FAIL)], False, "a: a is fail"),
    "unknown": ([said("node2", b=Status.UNKNOWN)], True, "b: fine"),
    "both": ([said("node2", a=Status.UNKNOWN, b=Status.FAIL)], False, "b: fine"),
    "torn": ([said("node2")[:150]], True, "its answer is torn"),
    "twice in a task": ([said("node2") * 2], True, "2 answers under its name"),
    "twice in two tasks": ([said("node2"), said("node2", a=Status.FAIL)], True, "2 answers under its name"),
    "one torn, one whole": ([said("node2")[:150], said("node2")], True, "2 answers under its name"),
    "no name": ([said("node2")[:20]], True, "no answer: asleep"),
    "another name inside": ([said("node2").replace('"gpus"', '"node": "node9", "gpus"')], True, "contradictory"),
    "results of another": ([said("node2").replace('"a", "node": "node2"', '"a", "node": "n9"')], True, "another node"),
    "a check missing": ([said("node2", checks=[asdict(replace(PASSED, node="node2"))])], True, "one result of each"),
    "no checks": ([said("node2", checks=[])], True, "one result of each"),
    "checks of no shape": ([said("node2", checks=[{"check": "a"}])], True, "cannot be read: KeyError"),
    "checks of another type": ([said("node2", checks=3)], True, "cannot be read: TypeError"),
    "a status of no kind": ([said("node2").replace('"pass"', '"fine"')], True, "cannot be read: ValueError"),
    "a field too many": ([said("node2").replace('"reason"', '"raison"')], True, "cannot be read: TypeError"),
    "another version": ([said("node2", piolet_vet=2)], True, "version 2"),
    "noise alone": (["driver loaded\n"], True, "no answer: asleep"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_READY)
def test_any_other_answer_makes_its_node_not_ready_and_no_other(case):
    texts, unknown, reason = NOT_READY[case]
    others = [said(node) for node in ("node1", "node3", "node4")]

    verdict = judge_answers(NODES, [*others, *texts], PROTOCOL, silence={"node2": "asleep"})

    assert verdict.ready == NodeSet("node[1,3-4]")
    assert [refusal.node for refusal in verdict.refused] == ["node2"]
    assert reason in verdict.refused[0].reason
    assert verdict.unknown == NodeSet("node2" if unknown else "")


def test_noise_around_an_answer_does_not_matter():
    text = "Loading module\n" + said("node1") + "\nbye {}\n"

    assert judge_answers(NodeSet("node1"), [text], PROTOCOL).ready == NodeSet("node1")


def test_the_answer_of_a_node_that_was_not_asked_is_ignored():
    verdict = judge_answers(NodeSet("node1"), [said("node1"), said("node9", a=Status.FAIL)], PROTOCOL)

    assert verdict.ready == verdict.nodes == NodeSet("node1")


@pytest.mark.parametrize(
    ("wanted", "keep_first", "used", "spare"),
    [
        (2, None, "node[1,3]", "node4"),
        (2, "node4", "node[1,4]", "node3"),
        (2, "node2", "node[1,3]", "node4"),
        (3, "node1", "node[1,3-4]", ""),
        (1, "node3", "node3", "node[1,4]"),
    ],
)
def test_the_first_ready_nodes_are_used_and_the_preferred_one_if_it_is_ready(wanted, keep_first, used, spare):
    texts = [said(node, a=Status.FAIL if node == "node2" else Status.PASS) for node in NODES]

    choice = choose(wanted, judge_answers(NODES, texts, PROTOCOL), keep_first=keep_first)

    assert (choice.used, choice.spare) == (NodeSet(used), NodeSet(spare))
    assert [refusal.node for refusal in choice.refused] == ["node2"]


def test_too_few_ready_nodes_are_an_error_with_the_reason_of_each():
    verdict = judge_answers(NODES, [said("node1"), said("node2", a=Status.FAIL), said("node4")], PROTOCOL)

    with pytest.raises(Refused) as caught:
        choose(3, verdict)

    assert "3 nodes wanted, 2 of 4 ready" in caught.value.what
    assert "node2: a: a is fail" in caught.value.what
    assert "node3: no answer" in caught.value.what
    assert "--exclude=node[2-3]" in caught.value.remedy
    assert "1 more spare " in caught.value.remedy


def test_srun_says_why_nodes_are_silent():
    stderr = (
        "1: Traceback (most recent call last):\n"
        "1: ModuleNotFoundError: No module named 'piolet'\n"
        "srun: error: node2: task 1: Exited with exit code 1\n"
        "srun: error: Task launch for StepId=2.0 failed on node node3: Communication connection failure\n"
        "srun: error: Application launch failed: Communication connection failure\n"
        "srun: Job step aborted\n"
    )

    reasons = silences(Result(("srun",), 1, "", stderr), NODES)

    assert reasons["node2"] == "Exited with exit code 1 (ModuleNotFoundError: No module named 'piolet')"
    assert reasons["node3"] == "Communication connection failure"
    assert reasons["node4"] == "Job step aborted"
    assert silences(Result(("srun",), 0, "", ""), NODES) == {}
    assert silences(Result(("srun",), 124, "", stderr), NODES)["node1"] == "never began"


def test_pieces_of_lines_that_srun_cut_and_mixed_are_joined():
    text = ' 0: noise\n 0: {"a\n10: {"b": \n 0: ": 1}\n10: 2}\nsrun: something\n'

    assert tasks_output(text) == ['noise{"a": 1}', '{"b": 2}']
