"""Adapters, left-over control groups and DCGM's diagnostics: made trees, and an answer in its documented form."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from piolet.core.errors import ParseError
from piolet.core.nouns import Status
from piolet.vet.check import Context
from piolet.vet.checks import dcgm, leftovers, nic
from piolet.vet.checks.nic import Nic


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two ports of InfiniBand, of which one is down, and two interfaces."""
    for device, state in (("mlx5_0", "4: ACTIVE"), ("mlx5_1", "1: DOWN")):
        port = tmp_path / "infiniband" / device / "ports/1"
        write(port, state=state, rate="200 Gb/sec (4X HDR)", **{"counters/link_downed": "7"})
    write(tmp_path / "net/hsn0", operstate="up", speed="200000", carrier_down_count="1")
    write(tmp_path / "net/eth0", operstate="down", speed="-1")
    return tmp_path


def test_ports_are_read(classes):
    assert nic.ports(classes, ()) == (Nic("mlx5_0/1", "ACTIVE", 200, 7), Nic("mlx5_1/1", "DOWN", 200, 7))
    assert nic.ports(classes, ("hsn*", "eth0")) == (Nic("eth0", "down"), Nic("hsn0", "ACTIVE", 200.0, 1))
    assert nic.ports(classes / "nowhere", ()) == ()


@pytest.mark.parametrize(
    ("nics", "parameters", "status", "words"),
    [
        ([Nic("a", "ACTIVE", 200)], {}, Status.PASS, "active: a"),
        ([], {}, Status.PASS, "none of InfiniBand"),
        ([], {"devices": ("hsn*",)}, Status.FAIL, "0 of 1 adapters"),
        ([Nic("a", "ACTIVE")], {"count": 4}, Status.FAIL, "1 of 4 adapters"),
        ([Nic("a", "ACTIVE"), Nic("b", "INIT")], {}, Status.FAIL, "b is INIT"),
        ([Nic("a", "")], {}, Status.FAIL, "a is in no state"),
        ([Nic("a", "ACTIVE", 100)], {"min_gbit_per_s": 200.0}, Status.FAIL, "a has 100 Gbit/s"),
        ([Nic("a", "ACTIVE")], {"min_gbit_per_s": 200.0}, Status.UNKNOWN, "does not tell its speed"),
        ([Nic("a", "ACTIVE", 200, 6)], {"max_link_downs": 5}, Status.FAIL, "went down 6 times"),
        ([Nic("a", "ACTIVE", 200, 5)], {"max_link_downs": 5}, Status.PASS, "active"),
    ],
)
def test_nic(nics, parameters, status, words):
    judgement = nic.judge(tuple(nics), nic.Parameters(**parameters))

    assert (judgement.status, words in judgement.reason) == (status, True), judgement


def test_the_adapters_of_this_machine_are_judged():
    found = nic.observe(nic.Parameters(devices=("lo",)), Context({}))

    assert [each.name for each in found] == ["lo"]


@pytest.mark.parametrize(
    "place", ["system.slice/slurmstepd.scope", "system.slice/node1_slurmstepd.scope", "slurm", "memory/slurm/uid_1000"]
)
def test_groups_of_other_jobs_are_found(tmp_path, place):
    write(tmp_path / place / "job_7/step_0/user", **{"cgroup.procs": "11\n12"})
    write(tmp_path / place / "job_8/step_0", **{"cgroup.procs": ""})
    write(tmp_path / place / "job_9/step_0", **{"cgroup.procs": "13"})
    os.utime(tmp_path / place / "job_8", (1000, 1000))

    found = leftovers.groups(tmp_path, "9", 1400.0)

    assert [(each.job, each.processes) for each in found] == [("7", 2), ("8", 0)]
    assert found[1].age_s == 400


@pytest.mark.parametrize(
    ("groups", "parameters", "status", "words"),
    [
        ([], {}, Status.PASS, "no control group"),
        ([leftovers.Group("7", 2, 9000)], {}, Status.PASS, "no control group"),
        ([leftovers.Group("7", 2, 1)], {"shared": False}, Status.FAIL, "2 processes of job 7"),
        ([leftovers.Group("7", 0, 301)], {}, Status.FAIL, "job 7 is left, empty for 301 s"),
        ([leftovers.Group("7", 0, 10)], {}, Status.PASS, "no control group"),
    ],
)
def test_leftovers(groups, parameters, status, words):
    judgement = leftovers.judge(tuple(groups), leftovers.Parameters(**parameters))

    assert (judgement.status, words in judgement.reason) == (status, True), judgement


def diagnostics(status: str, **more: object) -> str:
    """An answer as the DCGM User Guide shows it; not a recording."""
    memory = {"name": "Memory", "results": [{"gpu_ids": "1", "status": status, **more}]}
    denylist = {"name": "Denylist", "results": [{"gpu_ids": "0,1", "status": "Pass"}]}
    categories = [{"category": "Deployment", "tests": [denylist, memory]}]
    return json.dumps({"DCGM GPU Diagnostic": {"test_categories": categories}})


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        (diagnostics("Pass"), Status.PASS, "2 tests of level 1 passed"),
        (diagnostics("Skip"), Status.PASS, "1 tests of level 1 passed"),
        (diagnostics("Fail", warnings="row remap"), Status.FAIL, "GPU 1: Memory failed: row remap"),
        (diagnostics("Fail", warnings=[{"warning": "a"}, {"warning": "b"}]), Status.FAIL, "Memory failed: a; b"),
        (f"noise\n{diagnostics('Fail')}", Status.FAIL, "without a word"),
    ],
)
def test_dcgm(text, status, words):
    judgement = dcgm.judge(dcgm.parse(text), dcgm.Parameters())

    assert (judgement.status, words in judgement.reason) == (status, True), judgement


@pytest.mark.parametrize("text", ["", "Error: no", "{}", '{"DCGM GPU Diagnostic": []}'])
def test_what_is_no_answer_of_dcgm_is_an_error(text):
    with pytest.raises(ParseError, match="dcgmi"):
        dcgm.parse(text)


@pytest.mark.parametrize(("required", "status"), [(True, Status.UNKNOWN), (False, Status.PASS)])
def test_without_dcgm_the_protocol_decides(required, status):
    assert dcgm.judge(None, dcgm.Parameters(required=required)).status is status
