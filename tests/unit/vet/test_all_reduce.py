"""The judgement of an all-reduce, and who meets whom where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.nouns import Status
from piolet.vet.check import Context
from piolet.vet.checks import all_reduce
from piolet.vet.checks.all_reduce import Observation, Parameters, bus_gb_per_s, judge, members, port_of, ranks_here
from piolet.vet.collective import Asked

STEP = {
    "SLURMD_NODENAME": "node2",
    "SLURM_STEP_NODELIST": "node[1-3]",
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_CLUSTER_NAME": "c",
}


def asked(rank: int = 0, gpu: int = -1) -> Asked:
    return Asked(rank, ("node1", "node2"), 2, gpu, "127.0.0.1", 20000, (1, 16), 0, 3, 10.0)


def observation(seconds: float, *, wrong: int = 0) -> Observation:
    return Observation(4, 2, "gloo", {1: (9.0, 9.0, 9.0), 256: (seconds, 90.0, seconds)}, wrong)


def test_the_bus_bandwidth_is_that_of_nccl_tests():
    """An example with round figures: 1 GiB in 10 ms by 8 ranks moves 7/4 of it over each link."""
    assert bus_gb_per_s(1024, 0.01, 8) == pytest.approx(1.073741824 / 0.01 * 1.75)


@given(seconds=st.floats(1e-6, 1e3), longer=st.floats(1.01, 100), ranks=st.integers(2, 4096))
def test_who_takes_longer_has_less_bandwidth(seconds, longer, ranks):
    assert bus_gb_per_s(16, seconds * longer, ranks) < bus_gb_per_s(16, seconds, ranks)


def test_the_median_of_the_largest_size_counts():
    found = judge(observation(0.01), Parameters(min_gb_per_s=40))

    assert (found.status, found.value, found.threshold) == (Status.PASS, 40.265, 40)
    assert found.reason.startswith("4 ranks on 2 nodes (gloo): ")


def test_too_little_fails_and_says_that_one_may_slow_all():
    found = judge(observation(0.01), Parameters(min_gb_per_s=41))

    assert (found.status, found.value) == (Status.FAIL, 40.265)
    assert "one slow rank slows all" in found.remedy


def test_a_wrong_sum_fails_however_fast_it_came():
    found = judge(observation(1e-9, wrong=3), Parameters())

    assert (found.status, found.value, found.threshold) == (Status.FAIL, 3, 0)


def test_what_went_wrong_is_unknown_and_not_a_fault():
    found = judge(Observation(trouble="no rank of node2 came within 14 s"), Parameters())

    assert (found.status, found.reason) == (Status.UNKNOWN, "no rank of node2 came within 14 s")
    assert "ports 20000 to 31999" in found.remedy


def test_the_slowest_rank_of_a_node_speaks_for_it_and_wrong_sums_add_up():
    quick = {"durations_s": [[1, 1, 1], [2, 2, 2]], "wrong": 1}
    slow = {"durations_s": [[0, 0, 0], [3, 3, 3]], "wrong": 2}

    found = all_reduce.seen([asked(0), asked(1)], [quick, slow])

    assert found == Observation(4, 2, "gloo", {1: (0, 0, 0), 16: (3, 3, 3)}, 3)


def test_one_rank_in_trouble_is_trouble_for_its_node():
    good = {"durations_s": [[1, 1, 1], [2, 2, 2]], "wrong": 0}

    assert all_reduce.seen([asked(0), asked(1)], [good, {"trouble": "lost"}]).trouble == "lost"


@pytest.mark.parametrize(
    ("scope", "nodes"),
    [("full", ("node1", "node2", "node3")), ("internode", ("node1", "node2", "node3")), ("intranode", ("node2",))],
)
def test_the_scope_says_who_meets(scope, nodes):
    assert members(Parameters(scope=scope), STEP) == nodes


@pytest.mark.parametrize(
    ("scope", "gpus", "ranks"), [("full", 4, 4), ("full", 0, 1), ("internode", 4, 1), ("intranode", 0, 2)]
)
def test_each_gpu_is_a_rank_and_without_gpus_each_node(scope, gpus, ranks):
    assert ranks_here(Parameters(scope=scope), gpus) == ranks


def test_all_nodes_of_a_step_meet_at_one_port_and_other_steps_at_others():
    nodes = members(Parameters(), STEP)
    here, there = (port_of(Parameters(), STEP | {"SLURMD_NODENAME": name}, nodes) for name in ("node1", "node3"))
    others = {port_of(Parameters(), STEP | {"SLURM_STEP_ID": str(step)}, nodes) for step in range(1, 20)}

    assert here == there
    assert here not in others
    assert all(20000 <= port < 32000 for port in others)


def test_a_node_without_torch_says_how_to_get_it():
    found = judge(all_reduce.observe(Parameters(), Context(STEP)), Parameters())

    assert (found.status, found.reason) == (Status.UNKNOWN, "torch is not installed here")
    assert found.remedy.startswith("install torch")


def test_one_rank_alone_is_unknown(monkeypatch):
    monkeypatch.setattr(all_reduce, "_lacking", lambda _gpus: None)

    found = judge(all_reduce.observe(Parameters(), Context({"SLURMD_NODENAME": "node1"})), Parameters())

    assert (found.status, found.reason) == (Status.UNKNOWN, "one rank alone has nobody to reduce with")
