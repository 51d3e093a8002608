"""The text of `dcgmi dmon`, and scrapes of dcgm-exporter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from piolet.logbook.importing.recording import SECOND_NS, Entry, Given, Recording, begun_ns, text_of, wrong
from piolet.tools import dcgm, prometheus
from piolet.tools.prometheus import Sample

_SCRAPE_S = 30.0
"""The exporter reads its counters anew every 30 s unless told otherwise."""


def recognises_dmon(path: Path, head: str) -> bool:  # noqa: ARG001 - by its content
    """Return whether the file is what `dcgmi dmon` prints."""
    return "#Entity" in head or "# Entity" in head


def read_dmon(path: Path, given: Given) -> Recording:
    """Read what `dcgmi dmon` printed: it has no times, so lines are `given.interval_s` (1) apart."""
    text = text_of(path)
    interval_s = given.interval_s or 1.0
    rows = list(dcgm.parse_dmon(text))
    count = max(Counter(gpu for gpu, _ in rows).values(), default=0)
    start_ns = begun_ns(path, given, count * interval_s)
    return Recording(
        tool="dcgmi dmon",
        rows=_dmon_rows(rows, given.node or path.stem, start_ns, interval_s),
        interval_s=interval_s,
        started_ns=start_ns,
        ended_ns=start_ns + round(count * interval_s * SECOND_NS),
        left_out=frozenset(dcgm.unknown_columns(text)),
    )


def _dmon_rows(rows: list[tuple[int, dcgm.Columns]], node: str, start_ns: int, interval_s: float) -> Iterator[Entry]:
    seen: Counter[int] = Counter()
    for gpu, columns in rows:
        time_ns = start_ns + round(seen[gpu] * interval_s * SECOND_NS)
        seen[gpu] += 1
        yield "gpu", {"time_ns": time_ns, "node": node, "gpu": gpu, "source": "dcgm"} | columns


def recognises_scrape(path: Path, head: str) -> bool:  # noqa: ARG001 - by its content
    """Return whether the file is an exposition of dcgm-exporter."""
    return "DCGM_FI_" in head and "{" in head and "timestamp,gpuId" not in head


def read_scrape(path: Path, given: Given) -> Recording:
    """Read a scrape; samples without a time are of the moment at which the file was written."""
    samples = list(prometheus.parse(text_of(path)))
    when_ns = begun_ns(path, given, 0)
    by_time: dict[int, list[Sample]] = {}
    for sample in samples:
        by_time.setdefault(sample.time_ns or when_ns, []).append(sample)
    rows = [entry for time_ns, group in sorted(by_time.items()) for entry in _scrape_rows(time_ns, group, given.node)]
    if not rows:
        raise wrong(path, "no sample of a GPU that this release knows")
    interval_s = given.interval_s or _SCRAPE_S
    unknown = {sample.name for sample in samples if sample.name not in dcgm.BY_SYMBOL}
    return Recording(
        "dcgm-exporter",
        rows,
        interval_s,
        started_ns=min(by_time),
        ended_ns=max(by_time) + round(interval_s * SECOND_NS),
        models=dcgm.models_of(samples),
        left_out=frozenset(unknown),
    )


def _scrape_rows(time_ns: int, samples: list[Sample], node: str) -> Iterator[Entry]:
    for (host, gpu, uuid), columns in dcgm.columns_of(samples).items():
        identity = {"time_ns": time_ns, "node": node or host or "node", "gpu": gpu, "uuid": uuid or None}
        yield "gpu", identity | {"source": "dcgm"} | columns
