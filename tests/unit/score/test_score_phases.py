"""Phases and iterations against made signals whose truth is known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import made_logbooks
import pytest

from piolet.logbook.reader import Reader
from piolet.score import score_job
from piolet.score.period import period
from piolet.score.phases import Kind, filled, stretches

START_UP_S = 40.0
PLAN = (
    (Kind.START_UP, 40, 0.02),
    *[each for _ in range(3) for each in ((Kind.STEADY, 300, 0.55), (Kind.LOW, 12, 0.0))],
    (Kind.SLOWER, 200, 0.42),
    (Kind.LOW, 25, 0.05),
    (Kind.STEADY, 200, 0.55),
    (Kind.TAIL, 30, 0.0),
)


@dataclass(frozen=True, slots=True)
class Signal:
    times_s: list[float]
    values: list[float]

    def of_steady(self) -> list[float]:
        return [value for time_s, value in zip(self.times_s, self.values, strict=True) if time_s > START_UP_S]


def signal(plan: Sequence[tuple[Kind, int, float]], step_s: float, *, exchange: float = 0.3, seed: int = 1) -> Signal:
    """Seconds as a counter sees them: means over the second of steps whose last `exchange` share is half as active."""
    chance, seconds, values = random.Random(seed), 0, []  # noqa: S311 - reproducible, not secret
    for _, length, level in plan:
        for second in range(seconds, seconds + length):
            parts = [(second + part / 20) % step_s < step_s * (1 - exchange) for part in range(20)]
            share = sum(1.0 if computing else 0.5 for computing in parts) / 20 if level > 0.3 else 1.0
            values.append(max(0.0, level * share + chance.gauss(0, 0.015)))
        seconds += length
    return Signal([second + 0.5 for second in range(seconds)], values)


@pytest.mark.parametrize("step_s", [2.7, 4.0, 7.3, 12.9, 21.7])
def test_the_time_of_an_iteration_is_found_without_anybody_telling(step_s: float) -> None:
    found = period(signal(PLAN, step_s).of_steady(), 1.0)
    assert found is not None
    assert found.seconds == pytest.approx(step_s, rel=0.02)


def test_noise_and_a_flat_signal_have_no_period() -> None:
    chance = random.Random(3)  # noqa: S311 - reproducible, not secret
    assert period([chance.random() for _ in range(2000)], 1.0) is None
    assert period([0.5] * 2000, 1.0) is None
    assert period([0.1, 0.9, 0.1], 1.0) is None


@pytest.mark.parametrize("step_s", [0.6, 4.0, 7.3, 12.9, 21.7])
def test_phases_are_found_where_they_are(step_s: float) -> None:
    made = signal(PLAN, step_s)
    repeats = period(made.of_steady(), 1.0)
    found = stretches(
        made.times_s, made.values, end_s=1431, startup_s=START_UP_S, period_s=repeats.seconds if repeats else 0.0
    )
    assert [each.kind for each in found] == [kind for kind, _, _ in PLAN]
    begins = [sum(length for _, length, _ in PLAN[:number]) for number in range(len(PLAN))]
    assert [each.from_s for each in found] == pytest.approx(begins, abs=max(3.0, step_s / 2))
    assert [each.to_s for each in found[:-1]] == [each.from_s for each in found[1:]]


@pytest.mark.parametrize("count", [1, 2, 9, 300])
@pytest.mark.parametrize("level", [0.0, 0.5])
def test_a_job_that_never_changes_is_one_phase(count: int, level: float) -> None:
    times = [second + 0.5 for second in range(count)]
    found = stretches(times, [level] * count, end_s=count)
    assert [(each.kind, each.from_s, each.to_s) for each in found] == [(Kind.STEADY, 0.0, count)]


def test_noise_alone_is_one_phase() -> None:
    chance = random.Random(4)  # noqa: S311 - reproducible, not secret
    values = [chance.uniform(0.3, 0.7) for _ in range(3600)]
    assert len(stretches([float(at) for at in range(3600)], values, end_s=3600)) == 1


def test_nothing_was_sampled_after_start_up() -> None:
    assert stretches([], [], end_s=10) == []
    assert stretches([1.0], [0.5], end_s=10, startup_s=5.0) == []


def test_only_the_dips_of_iterations_are_filled() -> None:
    steps = [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0] * 10
    stopped = steps[:35] + [0.0] * 12 + steps[35:]
    assert filled(steps, 7.0) == pytest.approx([1.0] * 68 + [0.0] * 2) or set(filled(steps, 7.0)[:60]) == {1.0}
    assert filled(stopped, 7.0)[30:50].count(0.0) >= 12
    assert filled([0.3, 0.4], 0.0) == [0.3, 0.4]


def minutes_of(levels: Sequence[tuple[int, dict[str, float]]], **columns: Sequence[float]) -> Reader:
    """A job of one GPU in stretches of (seconds, columns); `columns` of the host by stretch."""
    rows: list[tuple[str, dict[str, object]]] = []
    for number, (length, values) in enumerate(levels):
        begin = sum(each for each, _ in levels[:number])
        for second in range(begin, begin + length):
            rows.append(("gpu", made_logbooks.row("node1", 0, second + 0.5, **values)))
            host = {name: each[number] for name, each in columns.items()}
            time_ns = made_logbooks.START_NS + second * made_logbooks.SECOND_NS
            rows.append(("host", {"time_ns": time_ns, "node": "node1", **host}))
    return made_logbooks.in_memory(rows)


TRAINING = {"tensor_active": 0.5, "sm_active": 0.8, "dram_active": 0.3, "pcie_tx_bytes_per_s": 1e8}
STOPPED = {"tensor_active": 0.0, "sm_active": 0.01, "dram_active": 0.01, "pcie_tx_bytes_per_s": 0.0}


def test_a_stop_is_named_by_what_else_happened() -> None:
    levels = [(100, TRAINING), (10, STOPPED), (100, TRAINING), (15, STOPPED), (100, TRAINING), (12, STOPPED)]
    levels[1] = (10, STOPPED | {"pcie_tx_bytes_per_s": 6e9})
    written, waiting = (0.0, 2e9, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.4, 0.0, 0.0)
    with minutes_of(levels, disk_write_bytes_per_s=written, cpu_iowait_ratio=waiting) as reader:
        score = score_job(reader, made_logbooks.job(seconds=337))
    assert [phase.name for phase in score.phases] == [
        "steady state",
        "checkpoint",
        "steady state",
        "stall",
        "steady state",
        "tail",
    ]
    assert score.phases[1].evidence == "2.0 GB/s written, 6.0 GB/s over PCIe"
    assert score.phases[3].evidence == "hosts wait for I/O 40\u00a0% of the time"
    assert score.phases[0].label.bottleneck == "tensor-bound"
    assert [phase.told for phase in score.phases] == [False] * 6
    assert sum(phase.duration_s for phase in score.phases) == pytest.approx(337)


def test_the_programs_own_phases_come_first() -> None:
    told = [(3, "warm-up"), (3, "warm-up"), (40, "training")]
    record = made_logbooks.job(seconds=60)
    events = [
        ("events", {"time_ns": made_logbooks.START_NS + at * made_logbooks.SECOND_NS, "kind": "phase", "code": code})
        for at, code in told
    ]
    with made_logbooks.in_memory([*made_logbooks.constant(record, 60, **TRAINING), *events]) as reader:
        score = score_job(reader, record)
    assert [(phase.name, phase.from_s, phase.to_s) for phase in score.phases] == [
        ("before the first phase", 0.0, 3.0),
        ("warm-up", 3.0, 40.0),
        ("training", 40.0, 60.0),
    ]
    assert all(phase.told for phase in score.phases)
