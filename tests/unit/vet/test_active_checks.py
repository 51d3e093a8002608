"""Checks that measure: they run here for real, on the host, and each is made to fail."""

from __future__ import annotations

import stat
import sys

import numpy as np
import pytest

from piolet.core.errors import ToolMissing, ToolTimeout
from piolet.core.nouns import Status
from piolet.vet import arrays
from piolet.vet.check import Context
from piolet.vet.checks import filesystem, gemm, gpu_bandwidth, memory_bandwidth, script

HERE = Context({})


def judged(check, **parameters):
    given = check.Parameters(**parameters)
    return check.judge(check.observe(given, HERE), given)


def test_memory_is_copied_at_a_rate_that_can_be_true():
    judgement = judged(memory_bandwidth, mib=16, threads=2)

    assert judgement.status is Status.PASS
    assert 0.05 < judgement.value < 5000
    assert judged(memory_bandwidth, mib=16, threads=1, min_gb_per_s=1e6).status is Status.FAIL


def test_products_are_alike_and_the_rate_is_judged():
    judgement = judged(gemm, size=128)

    assert judgement.status is Status.PASS
    assert judgement.value > 0
    assert judged(gemm, size=128, min_tflop_per_s=1e6).status is Status.FAIL


def test_copies_are_measured_each_way_and_judged():
    judgement = judged(gpu_bandwidth, mib=8, repetitions=3)

    assert judgement.status is Status.PASS
    assert 0 < judgement.value < 5000
    assert judgement.reason.startswith("the host (numpy): ")
    for way in gpu_bandwidth.WAYS:
        slow = judged(gpu_bandwidth, mib=1, repetitions=3, **{f"min_{way}_gb_per_s": 1e6})
        assert (slow.status, slow.threshold, way.replace("_", " ") in slow.reason) == (Status.FAIL, 1e6, True)


class Lying(arrays.NumpyBackend):
    """A processor that flips one bit of its third product."""

    products = 0

    def multiply(self, left, right):
        product = super().multiply(left, right)
        self.products += 1
        if self.products == 3:
            product.view(np.int32)[5, 7] ^= 1
        return product


def test_one_flipped_bit_in_one_product_is_found():
    parameters = gemm.Parameters(size=64)

    judgement = gemm.judge((gemm.measure(Lying(), parameters),), parameters)

    assert judgement.status is Status.FAIL
    assert "1 of 5 products differ" in judgement.reason


def test_gpus_that_nothing_here_can_use_are_not_healthy():
    with pytest.raises(ImportError, match="nothing here can compute on 2 GPUs"):
        gemm.observe(gemm.Parameters(), Context({"SLURM_STEP_GPUS": "0,1"}))


@pytest.mark.parametrize("measure", ["write", "read", "metadata"])
def test_a_directory_is_measured_and_left_as_it_was(tmp_path, measure):
    judgement = judged(filesystem, path=str(tmp_path), measure=measure, mib=2, files=20)

    assert judgement.status is Status.PASS
    assert judgement.value > 0
    assert list(tmp_path.iterdir()) == []
    assert judged(filesystem, path=str(tmp_path), measure=measure, mib=1, files=5, least=1e12).status is Status.FAIL


@pytest.mark.parametrize("measure", ["write", "metadata"])
def test_a_directory_that_is_not_there_fails(tmp_path, measure):
    judgement = judged(filesystem, path=str(tmp_path / "gone"), measure=measure)

    assert judgement.status is Status.FAIL
    assert "No such file" in judgement.reason


def test_content_that_comes_back_changed_fails():
    judgement = filesystem.judge(filesystem.Seen(100.0, wrong_blocks=1), filesystem.Parameters("/x"))

    assert (judgement.status, judgement.reason) == (Status.FAIL, "/x: 1 MiB came back other than they were written")


@pytest.fixture
def program(tmp_path):
    def make(body: str) -> tuple[str, ...]:
        path = tmp_path / "check.py"
        path.write_text(f"#!{sys.executable}\n{body}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return (str(path),)

    return make


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("""print('noise'); print('{"status": "pass", "reason": "ok", "value": 3}')""", Status.PASS, "ok"),
        ("""print('{"status": "fail", "reason": "slow", "remedy": "x"}')""", Status.FAIL, "slow"),
        (
            """print('{"status": "pass", "reason": "ok"}'); raise SystemExit('broken')""",
            Status.UNKNOWN,
            "status 1: brok",
        ),
        ("print('fine')", Status.UNKNOWN, "no judgement: 'fine'"),
        ("pass", Status.UNKNOWN, "no judgement: ''"),
        ("""print('{"status": "good", "reason": "ok"}')""", Status.UNKNOWN, "no judgement"),
        ("""print('{"status": "pass"}')""", Status.UNKNOWN, "no judgement"),
        ("""print('{"status": "pass", "reason": "ok", "score": 3}')""", Status.UNKNOWN, "no judgement"),
        ("""print('{"status": "pass", "reason": "ok", "value": true}')""", Status.UNKNOWN, "no judgement"),
        ("""print('[1]')""", Status.UNKNOWN, "no judgement"),
    ],
)
def test_a_program_is_taken_at_its_word_and_at_nothing_else(program, body, status, reason):
    judgement = judged(script, command=program(body))

    assert judgement.status is status
    assert reason in judgement.reason


def test_a_program_that_is_missing_or_late_raises(program):
    with pytest.raises(ToolMissing):
        judged(script, command=("/no/such/program",))
    with pytest.raises(ToolTimeout):
        judged(script, command=program("import time; time.sleep(60)"), answer_s=0.3)
