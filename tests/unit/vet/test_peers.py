"""Nodes compared with each other."""

import json
from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.nodeset import NodeSet
from piolet.core.nouns import CheckResult, Status
from piolet.vet import judge_answers
from piolet.vet.checks import uniform
from piolet.vet.gpus import Gpus, Reading
from piolet.vet.peers import compared
from piolet.vet.protocol import PlannedCheck, Protocol

PROTOCOL = Protocol("p", (PlannedCheck("same", "uniform", "", uniform=True), PlannedCheck("own", "mounts", "")))


def result(node, value, status=Status.PASS, check="same"):
    return CheckResult(check, node, status, str(value), value, time_ns=1)


def verdict(values):
    """Judge answers of nodes that found these values."""
    texts = [
        json.dumps({"piolet_vet": 1, "node": node, "gpus": [],
                    "checks": [asdict(result(node, value)), asdict(result(node, index, check="own"))]})
        for index, (node, value) in enumerate(values.items())
    ]  # fmt: skip
    return judge_answers(NodeSet(values), texts, PROTOCOL)


def test_the_odd_node_is_refused_and_only_what_differs_is_named():
    usual = "driver 550.54; kernel 5.14; OS Linux 9"

    found = verdict({"n1": usual, "n2": "driver 550.54; kernel 5.15; OS Linux 9", "n3": usual})

    assert found.ready == NodeSet("n[1,3]")
    assert found.refused == (("n2", "same: kernel 5.15 here, kernel 5.14 on 2 of 3 nodes"),)
    assert not found.unknown


@pytest.mark.parametrize("values", [("a", "b"), ("a", "a", "b", "b"), ("a", "b", "c")])
def test_without_a_majority_nobody_can_tell(values):
    found = verdict({f"n{index}": value for index, value in enumerate(values)})

    assert not found.ready
    assert found.unknown == found.nodes
    assert "the nodes differ" in found.refused[0].reason


def test_a_single_node_has_nobody_to_differ_from():
    assert verdict({"n1": "a"}).ready == NodeSet("n1")


@pytest.mark.parametrize("odd", [["a"], {"a": 1}, None, 3, ""])
def test_a_value_of_any_kind_is_compared(odd):
    found = verdict({"n1": "a", "n2": odd, "n3": "a"})

    assert found.ready == NodeSet("n[1,3]")
    assert [refusal.node for refusal in found.refused] == ["n2"]


@given(st.lists(st.tuples(st.sampled_from("aab"), st.sampled_from(list(Status))), min_size=1, max_size=9))
def test_the_comparison_is_that_of_a_model(nodes):
    before = [result(f"n{index}", value, status) for index, (value, status) in enumerate(nodes)]

    after = compared(before, PROTOCOL)

    told = Counter(value for value, status in nodes if status is Status.PASS)
    for old, new in zip(before, after, strict=True):
        if old.status is not Status.PASS or 2 * told[old.value] > told.total():
            assert new == old
        else:
            someone_leads = any(2 * count > told.total() for count in told.values())
            assert new.status is (Status.FAIL if someone_leads else Status.UNKNOWN)
            assert new.remedy


def test_a_protocol_without_uniform_checks_compares_nothing():
    results = [result("n1", "a"), result("n2", "b")]

    assert compared(results, Protocol("p", (PlannedCheck("same", "mounts", ""),))) == results


def observed(*bioses, driver="550.54", lost=()):
    readings = [Reading(f"GPU {index}", "", value=bios) for index, bios in enumerate(bioses)]
    readings += [Reading(f"GPU {index}", "", lost="the GPU is lost") for index in lost]
    return uniform.Observation(Gpus(len(readings), tuple(readings)), driver, "5.14", "Linux 9")


@pytest.mark.parametrize(
    ("observation", "items", "value"),
    [
        (
            observed("96.1", "96.1"),
            None,
            "driver 550.54; VBIOS 96.1; kernel 5.14; OS Linux 9; BIOS none; adapters none",
        ),
        (observed("96.2", "96.1"), ("VBIOS",), "VBIOS 96.1, 96.2"),
        (observed("96.1", None), ("VBIOS",), "VBIOS 96.1, not told"),
        (observed(driver="none"), ("driver", "VBIOS"), "driver none; VBIOS none"),
    ],
)
def test_a_node_tells_its_versions(observation, items, value):
    judgement = uniform.judge(observation, uniform.Parameters(items) if items else uniform.Parameters())

    assert (judgement.status, judgement.value) == (Status.PASS, value)


def test_firmware_of_the_board_and_of_adapters(tmp_path):
    for path, text in {"dmi/id/bios_version": "2.1", "infiniband/mlx5_0/fw_ver": "28.39.1002"}.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)

    assert uniform.firmware(tmp_path) == ("2.1", "28.39.1002")
    assert uniform.firmware(tmp_path / "nowhere") == ("none", "none")


def test_a_lost_gpu_cannot_tell():
    assert uniform.judge(observed("96.1", lost=[1]), uniform.Parameters()).status is Status.UNKNOWN


def test_simulated_gpus_tell_their_versions(simulated_node):
    found = simulated_node().check("type: uniform")

    assert found["status"] == "pass"
    assert found["value"].startswith("driver 550.54.15-sim; VBIOS ")
