"""Power, clocks, temperature and counters follow activity, and agree with one another."""

import os
import sys
from itertools import pairwise

import pytest

from piolet.core.run import SystemRunner
from piolet.lab import gpus

SHARES = list(range(1, 8)) + list(range(9, 14))
NVLINK_RX, NVLINK_TX = 60, 61
ALL_LINKS = 2**32 - 1
MIB = 1 << 20


def test_energy_is_the_integral_of_power(node):
    node.hint(2, "compute", ttl_s=10)
    times = [i / 20 for i in range(401)]
    answers = node.ask(
        *((at, call, "gpu:0") for at in times for call in ("GetPowerUsage", "GetTotalEnergyConsumption"))
    )
    power_mw, energy_mj = answers[::2], answers[1::2]
    integral = sum((a + b) / 2 / 20 for a, b in pairwise(power_mw))
    assert energy_mj[-1] - energy_mj[0] == pytest.approx(integral, rel=2e-3)
    assert energy_mj == sorted(energy_mj)
    assert max(power_mw) == pytest.approx(572_000, rel=0.01)


def test_link_counters_integrate_the_gpm_rates(node):
    node.hint(0, "communication", ttl_s=7)
    node.hint(4, "compute", ttl_s=4)
    before, metrics, after = node.ask(
        (1, "fields", "gpu:0", [138, ALL_LINKS], [139, ALL_LINKS], [138, 3]),
        (1, "gpm", "gpu:0", 9, [NVLINK_RX, NVLINK_TX, 68, 69]),
        (9, "fields", "gpu:0", [138, ALL_LINKS], [139, ALL_LINKS], [138, 3]),
    )
    tx_kib, rx_kib, link_kib = (b - a for a, b in zip(before, after, strict=True))
    assert tx_kib == pytest.approx(metrics["61"] * 1024 * 8, abs=2)
    assert rx_kib == pytest.approx(metrics["60"] * 1024 * 8, abs=2)
    assert link_kib == pytest.approx(metrics["69"] * 1024 * 8, abs=2)
    assert tx_kib * 1024 == pytest.approx((3 * 0.60 + 4 * 0.15) * 450e9, rel=1e-6)


def test_pcie_counters_integrate_the_throughput(node):
    node.hint(0, "checkpoint", ttl_s=100)
    before, rate_kib, after = node.ask(
        (1, "fields", "gpu:0", 197, 198), (2, "GetPcieThroughput", "gpu:0", 0), (11, "fields", "gpu:0", 197, 198)
    )
    assert after[0] - before[0] == pytest.approx(rate_kib * 1024 * 10, rel=1e-6)
    assert after[1] == before[1]


def test_two_processes_agree_on_every_value_of_an_instant(node):
    gpus.arm_script(
        node.directory, 0, "loop forever\ncompute 0.7 level=0.8\ncommunication 0.2\nend", time_ns=node.ns(1)
    )
    question = [
        (at, call, "gpu:0", *args)
        for at in (50, 51.234567)
        for call, *args in (
            ("GetPowerUsage",), ("GetTotalEnergyConsumption",), ("GetTemperature", 0), ("GetClockInfo", 1),
            ("GetUtilizationRates",), ("memory_v2",), ("fields", [138, ALL_LINKS], 83), ("gpm", 52, SHARES),
        )
    ]  # fmt: skip
    often = [(at / 7, "GetPowerUsage", "gpu:0") for at in range(350)]
    assert node.ask(*often, *question)[len(often) :] == node.ask(*question)


def test_values_rise_with_the_level(node):
    seen = []
    for number, level in enumerate((0, 0.25, 0.5, 0.75, 1)):
        start = 1 + 100 * number
        node.hint(start, "compute", ttl_s=90, level=level)
        power, energy, heat, util, metrics = node.ask(
            (start + 80, "GetPowerUsage", "gpu:0"),
            (start + 80, "GetTotalEnergyConsumption", "gpu:0"),
            (start + 80, "GetTemperature", "gpu:0", 0),
            (start + 80, "GetUtilizationRates", "gpu:0"),
            (start + 70, "gpm", "gpu:0", start + 80, [*SHARES, NVLINK_TX]),
        )
        seen.append([power, energy, heat, util["gpu"], util["memory"], *metrics.values()])
    for lower, higher in pairwise(seen):
        assert all(a <= b for a, b in zip(lower, higher, strict=True))
        assert lower[0] < higher[0]


def test_compute_is_the_published_sample_within_the_noise(node):
    node.hint(0, "compute", ttl_s=1000)
    for at in range(100, 110):
        found = node.one(at, "gpm", "gpu:0", at + 1, [1, 2, 3, 5, 7, 10, 12])
        assert found["2"] == pytest.approx(91, rel=0.0201)
        assert found["3"] == pytest.approx(24, rel=0.0201)
        assert found["5"] == found["7"] == pytest.approx(27.9, rel=0.0201)
        assert found["10"] == pytest.approx(21.4, rel=0.0201)
        assert found["12"] == pytest.approx(5.4, rel=0.0201)
        assert found["5"] <= found["2"] <= found["1"] <= 100


def test_a_hang_is_busy_and_does_nothing(node):
    node.hint(0, "hang", ttl_s=100, level=0.2)
    util, metrics = node.ask(
        (50, "GetUtilizationRates", "gpu:0"), (50, "gpm", "gpu:0", 60, [5, 10, NVLINK_RX, NVLINK_TX])
    )
    assert util["gpu"] == 100
    assert metrics["5"] == metrics["60"] == metrics["61"] == 0
    assert metrics["10"] < 1


def test_hints_expire_to_idle(node):
    node.hint(1, "compute", pid=os.getpid())
    busy, used, ran = node.ask(
        (5.9, "GetUtilizationRates", "gpu:0"),
        (5.9, "memory_v2", "gpu:0"),
        (5.9, "GetCurrentClocksEventReasons", "gpu:0"),
    )
    assert (busy["gpu"], used["used"] > 0, ran) == (100, True, 0)
    after = node.ask(
        (9, "GetUtilizationRates", "gpu:0"),
        (9, "memory_v2", "gpu:0"),
        (9, "GetCurrentClocksEventReasons", "gpu:0"),
        (9, "GetComputeRunningProcesses", "gpu:0"),
    )
    assert (after[0]["gpu"], after[1]["used"], after[2], after[3]) == (0, 0, 1, [])


def test_a_torn_last_line_waits_until_it_is_whole(node):
    node.hint(1, "idle", ttl_s=0)
    line = f"{node.ns(2)} activity compute ttl=100\n"
    node.append(line[:-9])
    assert node.one(10, "GetUtilizationRates", "gpu:0")["gpu"] == 0
    node.append(line[-9:])
    assert node.one(10, "GetUtilizationRates", "gpu:0")["gpu"] == 100


def test_garbage_between_lines_is_no_event(node):
    node.append(f"{node.ns(1)} activity compute ttl=100\n\x00\xff garbage\n{node.ns(2)} activ{node.ns(2)} clear\n")
    node.append("x" * 100_000 + "\n" + f"{node.ns(3)} slow 0.5\n")
    util, clock = node.ask((50, "GetUtilizationRates", "gpu:0"), (50, "GetClockInfo", "gpu:0", 1))
    assert (util["gpu"], clock) == (100, 990)


def test_the_other_gpu_sees_nothing(node):
    node.hint(0, "compute", ttl_s=100)
    assert node.ask((50, "GetPowerUsage", "gpu:1"), (50, "memory_v2", "gpu:1"))[0] == 70_000


def test_memory_of_both_versions_agrees(node):
    node.hint(0, "compute", ttl_s=100, memory_bytes=10 * 1024 * MIB)
    first, second = node.ask((1, "GetMemoryInfo", "gpu:0"), (1, "memory_v2", "gpu:0"))
    assert second["used"] == 10 * 1024 * MIB
    assert first["used"] == second["used"] + second["reserved"]
    assert first["free"] == second["free"]
    assert first["used"] + first["free"] == first["total"] == second["total"]


def test_a_killed_process_takes_its_memory_with_it_and_one_of_another_namespace_stays(node):
    child = SystemRunner().start([sys.executable, "-c", "import time; time.sleep(60)"])
    node.hint(1, "compute", ttl_s=50, memory_bytes=7 * MIB, pid=child.pid)
    node.append(f"{node.ns(1)} activity compute ttl=50 mem=9 pid=4100000 pidns=12345\n")
    listed = node.one(2, "GetComputeRunningProcesses", "gpu:0")
    assert {(entry["pid"], entry["usedGpuMemory"]) for entry in listed} == {(child.pid, 7 * MIB), (4100000, 9)}
    assert node.one(2, "memory_v2", "gpu:0")["used"] == 7 * MIB + 9
    child.kill()
    child.wait()
    assert node.one(3, "memory_v2", "gpu:0")["used"] == 9
    assert [entry["pid"] for entry in node.one(3, "GetComputeRunningProcesses", "gpu:0")] == [4100000]


def test_ampere_has_no_gpm(make_node):
    node = make_node("a100")
    assert node.ask((0, "gpm_support", "gpu:0"), (0, "gpm", "gpu:0", 1, [2])) == [0, {"error": 3}]


def test_the_first_gpm_sample_is_blank_and_unknown_metrics_are_not_supported(node):
    assert node.one(0, "gpm_support", "gpu:0") == 1
    assert set(node.one(5, "gpm_first", "gpu:0", [2, 10, 60]).values()) == {"error 21"}
    assert set(node.one(5, "gpm", "gpu:0", 5, [2]).values()) == {"error 21"}
    assert node.one(5, "gpm", "gpu:0", 6, [8, 98, 400]) == {"8": "error 3", "98": "error 3", "400": "error 3"}


def test_fields_that_do_not_exist_say_so_one_by_one(node):
    assert node.one(0, "fields", "gpu:0", 91, 300, 0, 999, [138, 18]) == [
        18, {"error": 3}, {"error": 2}, {"error": 2}, {"error": 2},
    ]  # fmt: skip


def test_a_megabyte_of_history_is_read_within_the_second(node):
    lines = (f"{node.ns(i / 10)} activity {('compute', 'communication')[i % 2]} level=0.9\n" for i in range(21_000))
    node.append("".join(lines))
    assert (node.directory / "gpu0.log").stat().st_size > 1_000_000
    assert node.one(2099.95, "GetUtilizationRates", "gpu:0")["gpu"] == 90
