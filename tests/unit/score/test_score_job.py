from __future__ import annotations

from dataclasses import replace

import made_logbooks
import pytest

from piolet.core.nouns import Gpu
from piolet.logbook.layout import Logbook
from piolet.logbook.reader import read
from piolet.logbook.records import NodeAllocation, read_job
from piolet.score import Bottleneck, JobScore, score_job, summary_lines
from piolet.score.terminal import score_lines

# Published: one sample of a training job on an H100 (its SM clock is not; the highest is taken).
PUBLISHED_H100 = {
    "gr_engine_active": 0.98,
    "sm_active": 0.91,
    "sm_occupancy_ratio": 0.24,
    "tensor_active": 0.279,
    "dram_active": 0.214,
    "fp32_active": 0.054,
    "power_w": 572.0,
}


def scored(rows: list[tuple[str, dict[str, object]]], **changes: object) -> JobScore:
    record = made_logbooks.job(**changes)
    with made_logbooks.in_memory(rows) as reader:
        return score_job(reader, record)


def test_the_published_h100_sample() -> None:
    record = made_logbooks.job(seconds=10)
    score = scored(made_logbooks.constant(record, 10, **PUBLISHED_H100), seconds=10)
    assert score.compute == pytest.approx(0.30, abs=0.001)
    assert score.memory == pytest.approx(0.2675, abs=0.001)
    assert score.score == pytest.approx(0.30, abs=0.001)
    assert score.label.bottleneck is Bottleneck.TENSOR_ACTIVE
    assert score.notes == ("Clocks were not recorded: compute is counted as if at the highest clock.",)


def test_a_high_utilisation_alone_is_worth_nothing() -> None:
    # Published: a T4 at 91 % utilisation whose engine was active 15.6 % of the time.
    record = made_logbooks.job(seconds=10)
    rows = made_logbooks.constant(
        record, 10, gpu_util_ratio=0.91, gr_engine_active=0.156, tensor_active=0.02, dram_active=0.03, fp32_active=0.05
    )
    score = scored(rows, seconds=10)
    assert score.score == pytest.approx(0.05)
    assert score.factors is not None
    assert score.factors.busy == pytest.approx(0.156)


def test_clocks_lower_compute_and_not_memory() -> None:
    record = made_logbooks.job(seconds=10)
    rows = made_logbooks.constant(
        record, 10, tensor_active=0.93, dram_active=0.2, sm_clock_hz=990_000_000, sm_clock_max_hz=1_980_000_000
    )
    score = scored(rows, seconds=10)
    assert score.compute == pytest.approx(0.5)
    assert score.memory == pytest.approx(0.25)


def test_links_explain_and_earn_nothing() -> None:
    record = made_logbooks.job(seconds=10)
    quiet = made_logbooks.constant(record, 10, tensor_active=0.1, dram_active=0.1)
    rows = made_logbooks.constant(record, 10, tensor_active=0.1, dram_active=0.1, nvlink_tx_bytes_per_s=450e9)
    assert scored(rows, seconds=10).score == scored(quiet, seconds=10).score
    assert scored(rows, seconds=10).network == pytest.approx(1.0)


def test_an_allocated_gpu_that_never_works_costs_its_share() -> None:
    record = made_logbooks.job(gpus=2, seconds=10)
    rows = made_logbooks.constant(record, 10, tensor_active=0.93, dram_active=0.1)
    idle = [(family, values if values["gpu"] == 0 else values | {"tensor_active_ratio": 0.0, "dram_active_ratio": 0.01})
            for family, values in rows]  # fmt: skip
    score = scored(idle, gpus=2, seconds=10)
    assert score.score == pytest.approx(0.5)
    assert score.factors is not None
    assert score.factors.used == pytest.approx(0.5)


def test_a_gpu_without_data_lowers_the_coverage_and_not_the_score() -> None:
    record = made_logbooks.job(gpus=2, seconds=20)
    rows = made_logbooks.constant(record, 20, tensor_active=0.465, dram_active=0.1)
    half = [(family, values) for family, values in rows if values["gpu"] == 0]
    score = scored(half, gpus=2, seconds=20)
    assert score.score == pytest.approx(0.5)
    assert score.coverage_ratio == pytest.approx(0.5)
    assert score.gpus[1].score is None
    assert any("1 GPU of 2 gave no activity counters" in note for note in score.notes)


def test_a_hole_in_the_middle_is_counted_in_seconds() -> None:
    record = made_logbooks.job(seconds=100)
    rows = [
        each
        for each in made_logbooks.constant(record, 100, tensor_active=0.5, dram_active=0.1)
        if not 40 <= (int(each[1]["time_ns"]) - made_logbooks.START_NS) / 1e9 < 60  # type: ignore[call-overload]
    ]
    score = scored(rows, seconds=100)
    assert score.coverage_ratio == pytest.approx(0.80)
    assert score.score == pytest.approx(0.5 / 0.93)


def test_startup_is_quoted_apart() -> None:
    record = made_logbooks.job(seconds=200)
    rows = made_logbooks.constant(record, 200, tensor_active=0.465, dram_active=0.1)
    slow = [
        (family, values | ({"tensor_active_ratio": 0.0, "dram_active_ratio": 0.0} if number < 120 else {}))
        for number, (family, values) in enumerate(rows)
    ]
    score = scored(slow, seconds=200)
    assert score.startup_s == pytest.approx(120.5)
    assert score.score == pytest.approx(0.5 * 80 / 200)
    assert score.steady == pytest.approx(0.5)


def test_blanks_that_a_source_did_not_mark_are_missing() -> None:
    record = made_logbooks.job(seconds=10)
    rows = made_logbooks.constant(record, 10, tensor_active=1.4e16, dram_active=0.1)
    assert scored(rows, seconds=10).score is None


def test_gpus_of_others_are_left_out() -> None:
    record = made_logbooks.job(seconds=10)
    own = made_logbooks.constant(record, 10, tensor_active=0.465, dram_active=0.1)
    foreign = [
        ("gpu", made_logbooks.row("node1", 7, second, tensor_active=0.0, dram_active=0.0)) for second in range(10)
    ]
    score = scored(own + foreign, seconds=10)
    assert score.score == pytest.approx(0.5)
    assert len(score.gpus) == 1


def test_an_unknown_allocation_takes_what_was_sampled() -> None:
    record = made_logbooks.job(seconds=10)
    rows = made_logbooks.constant(record, 10, tensor_active=0.465, dram_active=0.1)
    score = scored(rows, seconds=10, allocation=())
    assert score.score == pytest.approx(0.5)
    assert any("allocation is unknown" in note for note in score.notes)
    assert any("No ceilings are known for a GPU without a name" in note for note in score.notes)


def test_a_gpu_without_counters_has_no_score_instead_of_zero() -> None:
    record = made_logbooks.job(seconds=10)
    score = scored(made_logbooks.constant(record, 10, gpu_util_ratio=1.0, power_w=300.0), seconds=10)
    assert score.score is None
    assert score.factors is None
    assert score.gpus[0].power_w == pytest.approx(300)
    assert score.label.bottleneck is Bottleneck.UNKNOWN
    assert any("No GPU gave activity counters" in note for note in score.notes)


def test_no_samples_no_gpu_and_a_running_job() -> None:
    nothing = scored([])
    assert nothing.score is None
    assert nothing.coverage_ratio == 0.0
    assert any("No GPU sample was recorded" in note for note in nothing.notes)
    no_gpu = scored([], gpus=0)
    assert no_gpu.gpus == ()
    assert any("No GPU was allocated" in note for note in no_gpu.notes)
    running = scored([], program_ended_ns=None)
    assert running.running
    assert any("not ended" in note for note in running.notes)


def test_a_running_job_is_scored_so_far() -> None:
    record = made_logbooks.job()
    rows = made_logbooks.constant(record, 7, tensor_active=0.465, dram_active=0.1)
    score = scored(rows, program_ended_ns=None)
    assert score.running
    assert score.wall_s == pytest.approx(7.5)
    assert score.score == pytest.approx(0.5)
    assert score.coverage_ratio == pytest.approx(1.0)


def test_a_job_of_two_seconds() -> None:
    record = made_logbooks.job(seconds=2)
    score = scored(made_logbooks.constant(record, 2, tensor_active=0.465, dram_active=0.1), seconds=2)
    assert score.score == pytest.approx(0.5)
    assert score.startup_s == 0.0


def test_the_sampling_rate_does_not_matter() -> None:
    record = made_logbooks.job(seconds=10)
    slow = made_logbooks.constant(record, 10, tensor_active=0.4, dram_active=0.1)
    fast = [
        ("gpu", made_logbooks.row("node1", 0, tenth / 10, tensor_active=0.3 if tenth % 2 else 0.5, dram_active=0.1))
        for tenth in range(100)
    ]
    assert scored(fast, seconds=10, sample_interval_s=0.1).score == pytest.approx(scored(slow, seconds=10).score)


def test_energy_survives_a_reset_of_the_counter() -> None:
    counter = (1000.0, 1300.0, 1600.0, 5.0, 305.0)
    rows = [("gpu", made_logbooks.row("node1", 0, second, energy_j=joules)) for second, joules in enumerate(counter)]
    assert scored(rows, seconds=5).energy_j == pytest.approx(900)


def test_a_throttled_gpu_is_named(training: Logbook) -> None:
    with read(training) as reader:
        score = score_job(reader, read_job(training.job))
    assert score.score == pytest.approx(score.factors.product if score.factors else 0)
    assert 0.3 < (score.score or 0) < (score.steady or 0) < 0.6
    assert score.gpus[0].throttled_s == 0.0
    assert [gpu.node for gpu in score.gpus] == ["node1", "node1", "node3", "node3"]


def test_laggards_are_named() -> None:
    record = made_logbooks.job(("a", "b"), gpus=4, seconds=10)
    rows = made_logbooks.constant(record, 10, tensor_active=0.6, dram_active=0.1)
    slow = [
        (family, values | ({"tensor_active_ratio": 0.3} if (values["node"], values["gpu"]) == ("b", 3) else {}))
        for family, values in rows
    ]
    assert scored(slow, nodes=("a", "b"), gpus=4, seconds=10).laggards == ("b:3",)
    assert scored(rows, nodes=("a", "b"), gpus=4, seconds=10).laggards == ()


def test_one_slow_gpu_among_many_is_named_and_noise_is_not() -> None:
    nodes = tuple(f"n{number}" for number in range(16))
    record = made_logbooks.job(nodes, gpus=4, seconds=4)
    rows = made_logbooks.constant(record, 4, tensor_active=0.6, dram_active=0.1)
    noisy = [
        (family, values | {"tensor_active_ratio": 0.6 - 0.001 * int(str(values["gpu"]))}) for family, values in rows
    ]
    slow = [
        (family, values | ({"tensor_active_ratio": 0.5} if (values["node"], values["gpu"]) == ("n7", 1) else {}))
        for family, values in noisy
    ]
    assert scored(slow, nodes=nodes, gpus=4, seconds=4).laggards == ("n7:1",)
    assert scored(noisy, nodes=nodes, gpus=4, seconds=4).laggards == ()


def test_a_gpu_is_itself_by_uuid_and_not_by_index() -> None:
    renamed = (NodeAllocation("node1", (Gpu(5, "GPU-node1-0", made_logbooks.H100),)),)
    record = made_logbooks.job(seconds=10)
    rows = made_logbooks.constant(record, 10, tensor_active=0.465, dram_active=0.1)
    assert scored(rows, seconds=10, allocation=renamed).score == pytest.approx(0.5)


def test_summary_lines(training: Logbook) -> None:
    lines = summary_lines(training)
    assert lines[0].startswith("saturation  ")
    assert "steady state" in lines[0]
    assert [line.split()[0] for line in lines] == ["saturation", "factors", "bottleneck", "coverage"]
    nothing = replace(scored([]), gpus=(), coverage_ratio=None)
    assert [line.split()[0] for line in score_lines(nothing)] == ["saturation", "bottleneck"]


def test_ofu_is_tensor_activity_at_the_clock_it_had() -> None:
    record = made_logbooks.job(seconds=20)
    half = {"sm_clock_hz": 990_000_000, "sm_clock_max_hz": 1_980_000_000}
    rows = made_logbooks.constant(record, 20, tensor_active=0.4, dram_active=0.1, **half)
    with made_logbooks.in_memory(rows) as reader:
        assert score_job(reader, record).ofu == pytest.approx(0.2)
    with made_logbooks.in_memory(made_logbooks.constant(record, 20, tensor_active=0.4, dram_active=0.1)) as reader:
        assert score_job(reader, record).ofu is None
