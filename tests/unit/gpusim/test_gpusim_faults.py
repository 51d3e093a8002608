"""Each fault shows in exactly its own calls and in the kernel log, and `clear` undoes it."""

import re

import pytest

from piolet.core.errors import StorageError, UsageError
from piolet.lab import gpus

XID, DOUBLE_BIT, SINGLE_BIT = 0x8, 0x2, 0x1
LOST = {"error": 15}

# Calls whose answers no fault may change unless CHANGES says so.
CALLS = {
    "name": ("GetName", "gpu:0"),
    "utilisation": ("GetUtilizationRates", "gpu:0"),
    "used": ("memory_v2", "gpu:0"),
    "power": ("GetPowerUsage", "gpu:0"),
    "clock": ("GetClockInfo", "gpu:0", 1),
    "temperature": ("GetTemperature", "gpu:0", 0),
    "memory temperature": ("fields", "gpu:0", 82),
    "reasons": ("GetCurrentClocksEventReasons", "gpu:0"),
    "corrected": ("GetTotalEccErrors", "gpu:0", 0, 0),
    "uncorrected": ("GetTotalEccErrors", "gpu:0", 1, 0),
    "dram": ("GetMemoryErrorCounter", "gpu:0", 1, 0, 2),
    "rows": ("GetRemappedRows", "gpu:0"),
    "histogram": ("GetRowRemapperHistogram", "gpu:0"),
    "links": ("fields", "gpu:0", *[[165, link] for link in range(18)]),
    "link 4": ("GetNvLinkState", "gpu:0", 4),
    "link errors": ("GetNvLinkErrorCounter", "gpu:0", 0, 2),
    "processes": ("GetComputeRunningProcesses", "gpu:0"),
    "replays": ("GetPcieReplayCounter", "gpu:0"),
    "lanes": ("GetCurrPcieLinkWidth", "gpu:0"),
    "most lanes": ("GetMaxPcieLinkWidth", "gpu:0"),
    "other GPU": ("GetUtilizationRates", "gpu:1"),
}
HOT = {"power", "clock", "temperature", "memory temperature", "reasons"}
CHANGES = [
    ({"xid": 13}, set()),
    ({"throttle": "thermal"}, HOT | {"utilisation"}),
    ({"throttle": "power"}, HOT | {"utilisation"}),
    ({"throttle": "hw-slowdown"}, HOT | {"utilisation"}),
    ({"ecc_corrected": 7}, {"corrected"}),
    ({"ecc_uncorrected": 3}, {"uncorrected", "dram", "rows"}),
    ({"remap": "pending"}, {"rows"}),
    ({"remap": "failed"}, {"rows", "histogram"}),
    ({"nvlink_down": 4}, {"links", "link 4", "power"}),
    ({"nvlink_errors": 5}, {"link errors"}),
    ({"pcie_width": 8}, {"lanes"}),
    ({"slow": 0.7}, HOT - {"reasons"} | {"utilisation"}),
    ({"leftover_memory": "20GiB"}, {"used", "processes"}),
    ({"temp": 80}, {"temperature", "memory temperature"}),
    ({"temp": 95}, HOT | {"utilisation"}),
    ({"hang": True}, HOT - {"clock", "reasons"} | {"utilisation"}),
]


def answers(node, at):
    return dict(zip(CALLS, node.ask(*((at, *call) for call in CALLS.values())), strict=True))


@pytest.mark.parametrize(("flags", "changes"), CHANGES, ids=lambda value: min(value, default=""))
def test_a_fault_shows_in_exactly_its_calls_and_clear_undoes_it(node, flags, changes):
    node.hint(0, "compute", ttl_s=10_000)
    healthy = answers(node, 900)
    node.fault(1000, **flags)
    sick = answers(node, 1900)
    assert {name for name in CALLS if sick[name] != healthy[name]} == changes
    node.fault(2000, clear=True)
    assert answers(node, 2900) == healthy


def test_a_lost_gpu_stays_in_the_count_and_answers_nothing_else(node):
    node.fault(10, xid=79)
    uuid = node.gpus[0].uuid
    count, *lost = node.ask((20, "count"), (20, "GetName", "gpu:0"), (20, "by_uuid", uuid), (20, "GetHandleByIndex", 0))
    assert count == 2
    assert lost == [LOST] * 3
    assert node.one(20, "handle_index", "gpu:1") == 1
    assert node.one(5, "GetName", "gpu:0") == "NVIDIA H100 80GB HBM3"
    node.fault(30, clear=True)
    assert node.one(40, "GetName", "gpu:0") == "NVIDIA H100 80GB HBM3"


def test_throttle_reasons_name_their_cause(node):
    def reasons(at):
        return node.one(at, "GetCurrentClocksEventReasons", "gpu:0")

    node.hint(0, "compute", ttl_s=10_000)
    for at, how, expected in ((10, "thermal", 0x48), (20, "power", 0x88), (30, "hw-slowdown", 0x8)):
        node.fault(at, throttle=how)
        assert reasons(at + 5) == expected
    assert node.one(35, "GetClockInfo", "gpu:0", 1) == pytest.approx(1980 / 2, abs=1)
    node.fault(40, clear=True, temp=88)
    assert reasons(45) == 0x20
    thermal, power, nothing = (
        node.one(45, "GetViolationStatus", "gpu:0", policy)["violationTime"] / 1e9 for policy in (1, 0, 4)
    )
    assert (thermal, power, nothing) == (pytest.approx(15), pytest.approx(10), 0)


def test_slow_scales_clocks_and_activity(node):
    node.hint(0, "compute", ttl_s=10_000)
    node.fault(10, slow="0.7")
    clock, metrics = node.ask((60, "GetClockInfo", "gpu:0", 1), (60, "gpm", "gpu:0", 70, [2, 61]))
    assert clock == 1386
    assert metrics["2"] == pytest.approx(91 * 0.7, rel=0.0201)
    assert metrics["61"] == pytest.approx(0.15 * 0.7 * 450e9 / (1 << 20), rel=1e-6)


def test_leftover_memory_has_a_process_that_does_not_run(node):
    node.fault(10, leftover_memory="20GiB")
    used, processes, busy = node.ask(
        (20, "memory_v2", "gpu:0"), (20, "GetComputeRunningProcesses", "gpu:0"), (20, "GetUtilizationRates", "gpu:0")
    )
    assert used["used"] == processes[0]["usedGpuMemory"] == 20 << 30
    assert len(processes) == 1
    assert busy["gpu"] == 0
    assert node.one(20, "process_name", processes[0]["pid"]) == {"error": 6}


def test_a_down_link_moves_no_bytes_and_the_others_go_on(node):
    node.hint(0, "communication", ttl_s=10_000)
    node.fault(10, nvlink_down=4)
    metrics = node.one(20, "gpm", "gpu:0", 30, [61, 71, 73])
    assert metrics["71"] == 0
    assert metrics["61"] == pytest.approx(17 * metrics["73"])


def test_pages_are_never_retired_where_rows_are_remapped(node):
    assert node.ask((0, "GetRetiredPages", "gpu:0", 0), (0, "GetRetiredPagesPendingStatus", "gpu:0")) == [
        {"error": 3}, {"error": 3},
    ]  # fmt: skip


def test_events_arrive_once_in_order_and_then_time_out(node):
    node.fault(5, xid=13)
    node.fault(20, xid=31)
    node.fault(21, gpu=1, ecc_uncorrected=2)
    node.fault(22, xid=79)
    both = node.one(10, "events", XID | DOUBLE_BIT, 30, 30, "gpu:0", "gpu:1")
    assert sorted(both) == [[DOUBLE_BIT, 2], [XID, 31], [XID, 48], [XID, 79]]
    assert node.one(10, "events", XID, 30, 30, "gpu:1") == [[XID, 48]]
    assert node.one(24, "events", XID, 30, 30, "gpu:1") == []
    assert node.one(10, "events", 0x10, 30, 30, "gpu:1") == {"error": 3}


def test_the_kernel_log_says_what_the_driver_would(node):
    node.fault(5, gpu=1, xid=79)
    node.fault(6, ecc_uncorrected=3)
    node.fault(7, nvlink_down=4)
    node.fault(8, slow=0.5)
    log = node.kernel_log()
    form = re.compile(r"6,(\d+),\d+,-;NVRM: Xid \(PCI:(\S+)\): (\d+), pid=.*")
    assert [form.fullmatch(line).groups() for line in log] == [
        ("0", "0000:43:00", "79"),
        ("1", "0000:1b:00", "48"),
        ("2", "0000:1b:00", "74"),
    ]
    assert log[0].endswith("GPU has fallen off the bus.")
    assert "link 4" in log[2]


def test_clear_strikes_its_own_lines_out_of_the_kernel_log_in_place(node):
    node.fault(5, gpu=1, xid=79)
    node.fault(6, xid=31)
    before = node.kernel_log()
    node.fault(7, gpu=1, clear=True)
    after = node.kernel_log()
    assert [len(line) for line in before] == [len(line) for line in after]
    assert "Xid" not in after[0]
    assert before[1] == after[1]
    assert (node.directory.parent / "kmsg").stat().st_mode & 0o777 == 0o666


def test_no_such_gpu_no_such_link_no_such_node(node, make_node):
    with pytest.raises(UsageError, match="no GPU 2"):
        node.fault(0, gpu=2, xid=79)
    with pytest.raises(UsageError, match="no NVLink 12"):
        make_node("a100").fault(0, nvlink_down=12)
    assert node.kernel_log() == ()
    with pytest.raises(StorageError):
        gpus.inject(node.directory / "none", 0, gpus.Fault(gpus.FaultKind.HANG))
