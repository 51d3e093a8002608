from __future__ import annotations

import pytest

from piolet.score.labels import RULES, label
from piolet.score.model import Bottleneck, Confidence

QUIET: dict[str, float | None] = {
    "compute": 0.1,
    "memory": 0.1,
    "network": 0.0,
    "sm": 0.3,
    "engine": 0.3,
    "tensor": 0.05,
    "dram": 0.08,
    "fp64": 0.0,
    "pcie": 1e8,
    "sm_pulse": 0.0,
    "cpu_busy": 0.2,
    "iowait": 0.0,
    "io_pressure": 0.0,
}

CASES = [
    ({"sm": 0.01, "engine": 0.02, "tensor": 0.0, "dram": 0.0}, Bottleneck.IDLE),
    ({"tensor": 0.7, "sm": 0.9}, Bottleneck.TENSOR_BOUND),
    ({"tensor": 0.279, "sm": 0.91, "dram": 0.214, "compute": 0.30, "memory": 0.27}, Bottleneck.TENSOR_ACTIVE),
    ({"fp64": 0.5, "sm": 0.8, "tensor": 0.0}, Bottleneck.FP64_BOUND),
    ({"pcie": 20e9, "sm": 0.1}, Bottleneck.HOST_IO),
    ({"dram": 0.7, "memory": 0.87, "compute": 0.3, "sm": 0.9}, Bottleneck.MEMORY_BOUND),
    ({"sm": 0.9, "tensor": 0.0, "compute": 0.5}, Bottleneck.COMPUTE_BOUND),
    ({"network": 0.8, "sm": 0.2}, Bottleneck.NETWORK_BOUND),
    ({"engine": 0.95, "sm": 0.1}, Bottleneck.LAUNCH_BOUND),
    ({"sm": 0.3, "sm_pulse": 0.8, "iowait": 0.3}, Bottleneck.INPUT_BOUND),
    ({}, Bottleneck.LOW_ACTIVITY),
]


@pytest.mark.parametrize(("changes", "expected"), CASES, ids=[str(case[1]) for case in CASES])
def test_each_label_has_its_activity(changes: dict[str, float], expected: Bottleneck) -> None:
    found = label(QUIET | changes, 1.0)
    assert found.bottleneck is expected
    assert found.evidence
    assert found.advice
    assert found.meaning.endswith(".")


def test_every_label_of_the_rules_is_covered_here() -> None:
    assert [rule.bottleneck for rule in RULES] == [expected for _, expected in CASES]


def test_the_first_match_wins() -> None:
    both = QUIET | {"tensor": 0.7, "sm": 0.9, "fp64": 0.5, "dram": 0.7, "memory": 0.87}
    assert label(both, 1.0).bottleneck is Bottleneck.TENSOR_BOUND


def test_a_host_stall_is_not_blamed_on_the_network() -> None:
    stalled = QUIET | {"network": 0.8, "sm": 0.2, "io_pressure": 0.5}
    assert label(stalled, 1.0).bottleneck is not Bottleneck.NETWORK_BOUND


@pytest.mark.parametrize(
    ("tensor", "coverage", "expected"),
    [
        (0.7, 1.0, Confidence.HIGH),
        (0.52, 1.0, Confidence.MEDIUM),
        (0.7, 0.8, Confidence.MEDIUM),
        (0.7, 0.3, Confidence.LOW),
    ],
)
def test_confidence_falls_near_a_threshold_and_with_thin_data(
    tensor: float, coverage: float, expected: Confidence
) -> None:
    assert label(QUIET | {"tensor": tensor, "sm": 0.9}, coverage).confidence is expected


def test_the_input_hypothesis_is_never_sure() -> None:
    assert label(QUIET | {"sm_pulse": 0.8, "cpu_busy": 0.99}, 1.0).confidence is Confidence.LOW


def test_without_counters_the_label_is_unknown() -> None:
    found = label(QUIET | {"compute": None, "memory": None}, 1.0)
    assert found.bottleneck is Bottleneck.UNKNOWN


def test_what_was_not_measured_satisfies_nothing() -> None:
    blind = dict.fromkeys(QUIET) | {"compute": 0.5, "memory": 0.1}
    assert label(blind, 1.0).bottleneck is Bottleneck.LOW_ACTIVITY
    assert "not measured" in label(blind, 1.0).evidence
