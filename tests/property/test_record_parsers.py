from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.core.errors import ParseError
from piolet.record.clock import next_tick, tick_reached
from piolet.record.collector import rate
from piolet.record.collectors import host, nvml
from piolet.record.collectors.host import HostReading
from piolet.record.spec import AgentSpec, parse
from piolet.tools import kmsg, proc
from piolet.tools.nvml import Reading, known
from piolet.tools.proc import CpuTimes, Memory, Traffic

counters = st.integers(0, 2**64)
times_s = st.floats(0, 1e9)
texts = st.text(max_size=200)


@given(st.integers(0, 1023), counters, counters, st.text().filter(lambda text: text.isprintable()))
def test_a_kernel_record_round_trips(prefix: int, sequence: int, time_us: int, text: str) -> None:
    message = kmsg.parse_record(f"{prefix},{sequence},{time_us},-;{text}")
    assert message == kmsg.KernelMessage(prefix % 8, sequence, time_us, text)


@given(texts)
def test_garbage_in_the_kernel_log_is_never_an_error(text: str) -> None:
    assert all(isinstance(message, kmsg.KernelMessage) for message in kmsg.parse(text))
    kmsg.parse_xid(text)
    assert kmsg.bus_id(text) == kmsg.bus_id(text).lower()


@given(st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(0, 31), st.integers(1, 200))
def test_the_bus_id_of_the_log_and_of_nvml_are_the_same(domain: int, bus: int, device: int, code: int) -> None:
    xid = kmsg.parse_xid(f"NVRM: Xid (PCI:{domain:04x}:{bus:02x}:{device:02x}): {code}, pid=7, GPU fell off the bus")
    assert xid is not None
    assert xid.bus_id == kmsg.bus_id(f"{domain:08X}:{bus:02X}:{device:02X}.0")
    assert (xid.code, xid.detail) == (code, "pid=7, GPU fell off the bus")


@pytest.mark.parametrize(
    "parse_text",
    [proc.parse_stat, proc.parse_meminfo, proc.parse_pressure, proc.parse_net_dev, proc.parse_diskstats],
)
@given(text=texts)
def test_garbage_in_proc_is_a_parse_error_or_empty(parse_text: Any, text: str) -> None:
    try:
        parsed = parse_text(text)
    except ParseError:
        return
    assert isinstance(parsed, CpuTimes | Memory | int | dict)


@given(st.dictionaries(st.from_regex(r"eth[0-9]{1,3}", fullmatch=True), st.tuples(counters, counters), max_size=5))
def test_network_counters_round_trip(interfaces: dict[str, tuple[int, int]]) -> None:
    lines = [f"{name}: {rx} 0 0 0 0 0 0 0 {tx} 0 0 0 0 0 0 0" for name, (rx, tx) in interfaces.items()]
    text = "\n".join(["Inter-|", " face |", "    lo: 9 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0", *lines])
    assert proc.parse_net_dev(text) == {name: Traffic(rx, tx) for name, (rx, tx) in interfaces.items()}


@given(st.integers(0, 2**62), st.integers(1, 60 * 10**9))
def test_the_next_tick_is_later_aligned_and_near(now_ns: int, interval_ns: int) -> None:
    tick = next_tick(now_ns, interval_ns)
    assert now_ns < tick <= now_ns + interval_ns
    assert tick % interval_ns == 0


@given(st.integers(1, 10**6), st.integers(-(10**15), 10**15), st.sampled_from([10**8, 10**9, 6 * 10**10]))
def test_a_reached_tick_is_aligned_and_never_older_than_an_interval(tick: int, late_ns: int, interval_ns: int) -> None:
    due_ns = tick * interval_ns
    now_ns = max(0, due_ns + late_ns)
    reached = tick_reached(due_ns, now_ns, interval_ns)
    assert reached % interval_ns == 0
    assert -interval_ns <= now_ns - reached < interval_ns
    if 0 <= late_ns < interval_ns:
        assert reached == due_ns


@given(st.one_of(st.none(), st.floats()), st.one_of(st.none(), st.floats()), st.floats(-10, 10))
def test_a_rate_is_unknown_or_not_negative(before: float | None, after: float | None, elapsed_s: float) -> None:
    result = rate(before, after, elapsed_s)
    assert result is None or not result < 0


@given(st.one_of(st.none(), st.floats(), st.integers(0, 2**64)))
def test_a_ratio_is_unknown_or_a_share(percent: float | None) -> None:
    value = nvml.ratio(percent)
    assert value is None or 0 <= value <= 1


@pytest.mark.parametrize(
    "blank", [0x7FFFFFF0, 0x7FFFFFFF, 9223372036854775794, 2**63 - 16, 9.223372036854776e18, math.nan, math.inf, -1]
)
def test_blank_sentinels_are_not_values(blank: float) -> None:
    assert known(blank) is None
    assert nvml.ratio(blank) is None


def test_a_blank_in_the_guise_of_a_percentage_is_not_a_share() -> None:
    assert nvml.ratio(1.4e16) is None
    assert nvml.ratio(100.4) == 1.0


_raw = st.one_of(st.none(), st.integers(0, 2**64))
_gpm = st.one_of(st.none(), st.dictionaries(st.sampled_from(nvml.nvml.GPM_METRICS), st.floats(), max_size=12))
readings = st.builds(
    Reading,
    time_s=times_s,
    gpm=_gpm,
    **{each.name: _raw for each in fields(Reading) if each.name not in {"time_s", "gpm"}},
)


@given(st.one_of(st.none(), readings), readings)
def test_gpu_columns_are_null_or_within_their_bounds(before: Reading | None, after: Reading) -> None:
    row = nvml.derive(before, after)
    assert set(row) <= set(nvml_columns())
    for name, value in row.items():
        assert value is None or math.isfinite(value)
        assert value is None or value >= 0
        assert not (name.endswith("_ratio") and value is not None and value > 1)
    if before is None and after.gpm is None:
        assert not any(name.endswith("_per_s") for name in row)


def nvml_columns() -> tuple[str, ...]:
    from piolet.logbook.schema import GPU  # noqa: PLC0415 - the schema is what the property is about

    return GPU.names


traffic = st.builds(Traffic, counters, counters)
host_readings = st.builds(
    HostReading,
    time_s=times_s,
    cpu=st.one_of(st.none(), st.builds(CpuTimes, counters, counters, counters)),
    memory=st.one_of(st.none(), st.builds(Memory, counters, counters)),
    cpu_pressure_us=_raw,
    memory_pressure_us=_raw,
    io_pressure_us=_raw,
    net=st.one_of(st.none(), st.dictionaries(st.sampled_from(["eth0", "hsn0"]), traffic)),
    disks=st.one_of(st.none(), st.dictionaries(st.sampled_from(["sda", "vda"]), traffic)),
)


@given(host_readings, host_readings)
def test_host_ratios_are_shares_and_rates_are_not_negative(before: HostReading, after: HostReading) -> None:
    for name, value in host.derive(before, after).items():
        if name.endswith("_ratio"):
            assert value is None or 0 <= value <= 1
        if name.endswith("_per_s"):
            assert value is None or value >= 0


@given(st.text().filter(lambda text: "\0" not in text), st.lists(st.integers(3, 99), max_size=3), st.booleans())
def test_the_spec_of_an_agent_survives_its_command_line(node: str, follow: list[int], owns: bool) -> None:  # noqa: FBT001
    from pathlib import Path  # noqa: PLC0415 - used here alone

    spec = AgentSpec(Path("/x/ü"), node, 0.5, 5, Path("/dev/kmsg"), owns_job=owns, follow=tuple(follow), election=4)
    assert parse(spec.argv()[-1]) == spec
