"""How often to write a checkpoint."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.cli.main import run_command
from piolet.data.cadence import cadence, footprint, job_mtbf_s

HOUR_S = 3600.0


@pytest.mark.parametrize(("mtbf_h", "young_s", "lost"), [(3, 930, 0.086), (8, 1518, 0.053), (24, 2629, 0.030)])
def test_published_intervals_for_40_seconds(mtbf_h, young_s, lost):
    found = cadence(40, mtbf_h * HOUR_S)

    assert found.young_s == pytest.approx(young_s, abs=1)
    assert found.lost_ratio == pytest.approx(lost, abs=0.002)


@given(st.floats(0.1, 1e3), st.floats(1e4, 1e7))
def test_no_other_interval_loses_less_when_failures_are_rare(write_s, mtbf_s):
    best_s = cadence(write_s, mtbf_s).interval_s

    def lost(interval_s: float) -> float:
        """Daly's complete model (his equation 20) without restarts, as a multiple of the work."""
        return mtbf_s * math.expm1((interval_s + write_s) / mtbf_s) / interval_s

    assert lost(best_s) <= min(lost(best_s * 0.9), lost(best_s * 1.1))


def test_it_is_not_shorter_than_a_checkpoint_takes_to_be_safe():
    found = cadence(1, HOUR_S, persist_s=600)

    assert (found.interval_s, found.bounded_by) == (600, "the time until a checkpoint is safe")
    assert cadence(8000, HOUR_S).interval_s == HOUR_S, "where writing takes longer than jobs live"


@pytest.mark.parametrize("times", [(0, 1), (1, 0), (float("nan"), 1)])
def test_times_must_be_positive(times):
    with pytest.raises(ValueError, match="positive"):
        cadence(*times)


def test_what_is_written_and_kept():
    found = footprint(860, 4, size_bytes=10, files=3, keep=2)

    assert (found.a_day, found.bytes_a_day, found.inodes_a_day) == (100, 1000, 300)
    assert (found.kept_bytes, found.kept_inodes) == (30, 9)
    assert job_mtbf_s(1000, 10) == 100


def test_the_command(capsys, tmp_path):
    (tmp_path / "shard").write_bytes(bytes(500))
    asked = [
        "data",
        "ckpt",
        "plan",
        "--write",
        "40",
        "--node-mtbf-hours",
        "800",
        "--nodes",
        "100",
        "--like",
        str(tmp_path),
    ]

    assert run_command([*asked, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["mtbf_s"], found["footprint"]["kept_inodes"]) == (8 * HOUR_S, 8)
    assert run_command(asked) == 0
    assert "Young: 1518 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [(), ("--mtbf-hours", "1", "--nodes", "2"), ("--node-mtbf-hours", "1"), ("--mtbf-hours", "-1")]
)
def test_a_failure_rate_that_is_missing_or_wrong_is_a_clear_error(capsys, options):
    assert run_command(["data", "ckpt", "plan", "--write", "40", *options]) == 2
    assert "mtbf-hours" in capsys.readouterr().err
