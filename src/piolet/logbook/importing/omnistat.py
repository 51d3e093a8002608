"""Omnistat's CSV files, as `omnistat-query --export` writes them: metric, instance and card above each column."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from piolet.logbook.importing.recording import SECOND_NS, Entry, Given, Recording, text_of, wrong

_METRICS = {
    "rocm_utilization_percentage": ("gpu_util_ratio", 0.01),
    "rocm_vram_busy_percentage": ("dram_active_ratio", 0.01),
    "rocm_average_socket_power_watts": ("power_w", 1.0),
    "rocm_energy_joules": ("energy_j", 1.0),
    "rocm_sclk_clock_mhz": ("sm_clock_hz", 1e6),
    "rocm_slck_clock_mhz": ("sm_clock_hz", 1e6),
    "rocm_mclk_clock_mhz": ("memory_clock_hz", 1e6),
    "rocm_mlck_clock_mhz": ("memory_clock_hz", 1e6),
    "rocm_temperature_celsius": ("temperature_c", 1.0),
    "rocm_temperature_memory_celsius": ("memory_temperature_c", 1.0),
}
"""Metric -> column and factor; releases spell the clocks either way."""

_SHARE, _TOTAL = "rocm_vram_used_percentage", "rocm_vram_total_bytes"
_LEVELS = 3

Head = tuple[str, str, str]
"""Metric, node and card of a column."""


def recognises(path: Path, head: str) -> bool:  # noqa: ARG001 - by its content
    """Return whether the file is an export of Omnistat's GPU metrics."""
    return "rocm_" in head.partition("\n")[0] and "," in head


def read(path: Path, given: Given) -> Recording:
    """Read one export."""
    lines = list(csv.reader(text_of(path).splitlines()))
    if len(lines) <= _LEVELS:
        raise wrong(path, "not an export of Omnistat: three lines of names and then the samples")
    heads = [(metric, node, card) for metric, node, card in zip(*(line[1:] for line in lines[:_LEVELS]), strict=False)]
    body = [line for line in lines[_LEVELS:] if any(line[1:])]  # pandas may give the names of the levels a line
    times_ns = [_time_ns(path, line[0]) for line in body]
    apart = [(after - before) / SECOND_NS for before, after in pairwise(times_ns)]
    interval_s = given.interval_s or (statistics.median(apart) if apart else 1.0)
    known = {*_METRICS, _SHARE, _TOTAL}
    return Recording(
        "omnistat",
        _rows(path, heads, body, times_ns),
        interval_s,
        started_ns=min(times_ns, default=0),
        ended_ns=max(times_ns, default=0) + round(interval_s * SECOND_NS),
        left_out=frozenset(metric for metric, _, card in heads if metric not in known or not card.isdigit()),
    )


def _time_ns(path: Path, text: str) -> int:
    try:
        return round(float(text) * SECOND_NS)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise wrong(path, "not a time", text) from error
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * SECOND_NS)


def _rows(path: Path, heads: Sequence[Head], body: Sequence[Sequence[str]], times_ns: Sequence[int]) -> Iterator[Entry]:
    for time_ns, line in zip(times_ns, body, strict=True):
        gpus: dict[tuple[str, int], dict[str, float]] = {}
        for (metric, node, card), text in zip(heads, line[1:], strict=False):
            if text and card.isdigit():
                gpus.setdefault((node, int(card)), {})[metric] = _number(path, text)
        for (node, gpu), values in gpus.items():
            yield "gpu", {"time_ns": time_ns, "node": node, "gpu": gpu, "source": "omnistat"} | _columns(values)


def _columns(values: dict[str, float]) -> dict[str, float]:
    found = {_METRICS[name][0]: value * _METRICS[name][1] for name, value in values.items() if name in _METRICS}
    if _SHARE in values and _TOTAL in values:
        found["memory_used_bytes"] = values[_SHARE] / 100 * values[_TOTAL]
    return found


def _number(path: Path, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise wrong(path, "not a number", text) from error
