"""What earlier jobs have measured, and what a protocol has time for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from piolet.core.errors import ConfigError
from piolet.core.nouns import CheckResult, Gpu, Severity, Status
from piolet.core.settings import Settings
from piolet.logbook import layout, records
from piolet.vet import load_protocol
from piolet.vet.budget import benefit, chosen, seconds
from piolet.vet.history import Record, past, records_of, remembered
from piolet.vet.peers import compared
from piolet.vet.protocol import Comparison, Criteria, PlannedCheck, Protocol, Repeat, from_json

COPY = PlannedCheck(
    "copy", "memory_bandwidth", "", criteria=Criteria("higher", history=Comparison(margin=0.1, least=3))
)


def kept(root: Path, job: int, *results: CheckResult, model: str = "H100") -> None:
    """Keep results of a job in a logbook."""
    logbook = layout.create(root, "here", str(job))
    held = tuple(records.NodeAllocation(each.node, (Gpu(0, "u", model),)) for each in results)
    records.write_job(logbook.job, records.JobRecord(str(job), "here", "me", ("x",), allocation=held))
    records.write_checks(logbook.vet, "before", results)


def copied(value: float, node: str = "n1", status: Status = Status.PASS, duration_s: float = 2.0) -> CheckResult:
    return CheckResult(
        "copy", node, status, f"{value:g}", value, unit="GB/s", duration_s=duration_s, version="memory_bandwidth/1"
    )


def test_results_are_read_back_and_what_is_torn_is_left_out(tmp_path):
    kept(tmp_path, 1, copied(100), copied(90, "n2"))
    kept(tmp_path, 2, copied(80), model="A100")
    torn = layout.create(tmp_path, "here", "3")
    torn.job.write_text("{", encoding="utf-8")

    assert sorted((each.job, each.model, each.result.node) for each in past(tmp_path)) == [
        ("1", "H100", "n1"), ("1", "H100", "n2"), ("2", "A100", "n1"),
    ]  # fmt: skip
    assert list(past(tmp_path / "nowhere")) == []


@pytest.mark.parametrize(
    ("value", "model", "status", "words"),
    [
        (95, "H100", Status.PASS, "95"),
        (70, "H100", Status.FAIL, "70 GB/s: the median of 4 earlier values is 101"),
        (70, "A100", Status.PASS, "too few earlier values to compare: 1 of 3"),
        (70, "", Status.PASS, "too few earlier values to compare: 0 of 3"),
    ],
)
def test_a_value_is_compared_with_earlier_ones_of_the_same_model(tmp_path, value, model, status, words):
    for job, earlier in enumerate((100, 101, 102, 101), start=1):
        kept(tmp_path, job, copied(earlier))
    kept(tmp_path, 5, copied(70), model="A100")
    kept(tmp_path, 6, copied(10, status=Status.FAIL))

    checks = remembered((COPY,), past(tmp_path))
    [result] = compared([copied(value)], Protocol("p", checks), {"n1": model})

    assert (result.status, words in result.reason) == (status, True), result


def test_a_protocol_that_compares_with_history_is_read_with_it(tmp_path):
    for job in range(1, 4):
        kept(tmp_path / "root", job, copied(100))
    path = tmp_path / "p.yaml"
    path.write_text("evals:\n- {name: copy, type: memory_bandwidth, criteria: {history: {mad: 3, least: 2}}}\n")

    protocol = load_protocol(str(path), Settings(root=tmp_path / "root"))

    [usual] = protocol.checks[0].criteria.usual
    assert (usual.model, usual.count, usual.median, usual.deviation) == ("H100", 3, 100, 0)
    assert protocol.checks[0].criteria.history == Comparison(mad=3, least=2)
    assert from_json(protocol.to_json()).checks[0].criteria is None, "nodes do not judge by it"


@pytest.mark.parametrize(
    "criteria", ["{history: 5}", "{history: {mad: a}}", "{history: {most: 1}}", "{usual: []}", "{history: {}, x: 1}"]
)
def test_wrong_criteria_are_refused(tmp_path, criteria):
    path = tmp_path / "p.yaml"
    path.write_text(f"evals:\n- {{type: memory_bandwidth, criteria: {criteria}}}\n")

    with pytest.raises(ConfigError):
        load_protocol(str(path), Settings(root=tmp_path))


def planned(name: str, typical_s: float, **more: object) -> PlannedCheck:
    return PlannedCheck(name, name, "", typical_s=typical_s, **more)


def names(checks) -> list[str]:
    return [check.name for check in checks]


def test_what_runs_at_once_costs_the_longest_and_what_is_quiet_the_sum():
    checks = [planned("a", 1), planned("b", 2), planned("c", 5, quiet=True), planned("d", 5, quiet=True, stage="s")]

    assert seconds(checks, {}) == (2 + 2 + 5) + (2 + 5)
    assert seconds([planned("a", 1, repeat=Repeat(3, "all", 1.0))], {}) == 2 + 6
    assert seconds(checks[:1], {"a": Record(9, 0, 4.0)}) == 2 + 4, "what it took before counts"


def test_a_budget_takes_what_finds_most_for_its_time():
    cheap, dear, found = planned("cheap", 1), planned("dear", 30, quiet=True), {"dear": Record(100, 50, 30.0)}

    assert tuple(map(names, chosen([cheap, dear], 10, {}))) == (["cheap"], ["dear"])
    assert tuple(map(names, chosen([cheap, dear], 40, {}))) == (["cheap", "dear"], [])
    assert tuple(map(names, chosen([cheap, dear], 1, {}))) == ([], ["cheap", "dear"])
    two = [planned("often", 20, quiet=True), planned("never", 20, quiet=True)]
    history = {"often": Record(100, 30, 20.0), "never": Record(1000, 0, 20.0)}
    assert names(chosen(two, 25, history)[0]) == ["often"]
    assert benefit(dear, found) > benefit(dear, {})
    assert benefit(planned("w", 1, severity=Severity.WARNING), {}) < benefit(planned("e", 1), {})


def test_records_count_what_was_found(tmp_path):
    kept(tmp_path, 1, copied(100, duration_s=1.0), copied(1, "n2", Status.FAIL, duration_s=3.0))

    assert records_of(past(tmp_path)) == {"memory_bandwidth": Record(2, 1, 2.0)}


def test_a_budget_in_a_file(tmp_path, piolet):
    path = tmp_path / "p.yaml"
    path.write_text("budget: 6\nevals:\n- type: mounts\n- {type: gemm, stage: load}\n")
    status, out, _ = piolet("vet", "check", str(path), "--format", "json")
    found = json.loads(out)

    assert (status, [each["type"] for each in found["checks"]], found["left_out"]) == (0, ["mounts"], ["gemm"])
    assert "left out for the budget: gemm" in piolet("vet", "check", str(path))[1]


@pytest.mark.parametrize("budget", ["0", "-1", "soon", "true", "0.5"])
def test_a_budget_that_is_none_is_refused(tmp_path, budget):
    path = tmp_path / "p.yaml"
    path.write_text(f"budget: {budget}\nevals:\n- type: mounts\n")

    with pytest.raises(ConfigError, match="budget"):
        load_protocol(str(path), Settings(root=tmp_path))


def test_the_history_is_printed(tmp_path, piolet, monkeypatch):
    monkeypatch.setenv("PIOLET_ROOT", str(tmp_path))
    kept(tmp_path, 1, copied(100), copied(1, "n2", Status.FAIL))

    status, out, _ = piolet("vet", "history", "--failed", "--format", "json")

    assert status == 0
    assert [(each["job"], each["node"], each["model"], each["value"]) for each in json.loads(out)] == [
        ("1", "n2", "H100", 1)
    ]
    assert "n1" in piolet("vet", "history", "--node", "n1", "--check", "copy")[1]
    assert json.loads(piolet("vet", "history", "--node", "n3", "--format", "json")[1]) == []
