"""A job of ClusterCockpit's archive: ``meta.json`` says what it was, ``data.json`` (or ``.gz``) holds its series.

Every metric has its own time step; a row holds what has the same time. Source: the job-data and job-meta schemas of
cc-specifications.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from piolet.core.errors import storage_errors
from piolet.logbook.importing.recording import SECOND_NS, Entry, Given, Recording

_GPU = {
    "acc_utilization": ("gpu_util_ratio", 0.01),
    "acc_mem_used": ("memory_used_bytes", 1.0),
    "acc_power": ("power_w", 1.0),
    "acc_temp": ("temperature_c", 1.0),
    "nv_util": ("gpu_util_ratio", 0.01),
    "nv_fb_mem_used": ("memory_used_bytes", 1.0),
    "nv_power_usage": ("power_w", 1.0),
    "nv_temp": ("temperature_c", 1.0),
    "nv_sm_clock": ("sm_clock_hz", 1.0),
}
_HOST = {
    "cpu_user": ("cpu_busy_ratio", 0.01),
    "mem_used": ("memory_used_bytes", 1.0),
    "net_bytes_in": ("net_rx_bytes_per_s", 1.0),
    "net_bytes_out": ("net_tx_bytes_per_s", 1.0),
}
_FAMILY = {"accelerator": ("gpu", _GPU), "node": ("host", _HOST)}
_PREFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "m": 1e-3}
_NAMES = ("data.json", "data.json.gz")


def recognises(path: Path, head: str) -> bool:  # noqa: ARG001 - by its name, for it may be compressed
    """Return whether the file is the data of an archived job."""
    return path.name in _NAMES and any((path.parent / name).exists() for name in ("meta.json", "meta.json.gz"))


def read(path: Path, given: Given) -> Recording:
    """Read one job; `path` is its data file."""
    metrics, about = _json(path), _about(path)
    start_ns = int(about["startTime"]) * SECOND_NS
    places = {
        (held["hostname"], str(name)): place
        for held in about["resources"]
        for place, name in enumerate(held.get("accelerators") or ())
    }
    rows, left_out, steps = _gathered(metrics, start_ns, places)
    return Recording(
        tool="clustercockpit",
        rows=_entries(rows),
        interval_s=given.interval_s or float(min(steps, default=60)),
        job_id=str(about["jobId"]),
        cluster=str(about["cluster"]),
        user=str(about["user"]),
        account=str(about.get("project") or ""),
        name=str((about.get("metaData") or {}).get("jobName") or ""),
        started_ns=start_ns,
        ended_ns=start_ns + int(about["duration"]) * SECOND_NS,
        left_out=frozenset(left_out),
    )


Key = tuple[str, int, str, int | None, str | None]
"""Family, time, node, and the GPU's index and UUID."""


def _gathered(
    metrics: Mapping[str, Any], start_ns: int, places: Mapping[tuple[str, str], int]
) -> tuple[dict[Key, dict[str, float]], set[str], set[float]]:
    rows: dict[Key, dict[str, float]] = {}
    left_out: set[str] = set()
    steps: set[float] = set()
    for name, scopes in metrics.items():
        scope = next((each for each in _FAMILY if each in scopes and name in _FAMILY[each][1]), None)
        if scope is None:
            left_out.add(name)
            continue
        family, columns = _FAMILY[scope]
        column, factor = columns[name]
        factor *= _scale(scopes[scope], column)
        step_s = int(scopes[scope]["timestep"])
        steps.add(step_s)
        for series in scopes[scope]["series"]:
            gpu, uuid = _gpu(series, places) if family == "gpu" else (None, None)
            for place, value in enumerate(series["data"]):
                if value is not None:
                    key = (family, start_ns + place * step_s * SECOND_NS, series["hostname"], gpu, uuid)
                    rows.setdefault(key, {})[column] = value * factor
    return rows, left_out, steps


def _scale(metric: Mapping[str, Any], column: str) -> float:
    """Return the factor of the unit's prefix; a ratio has a percentage without any."""
    prefix = (metric.get("unit") or {}).get("prefix") or ""
    return 1.0 if column.endswith("_ratio") else _PREFIXES[prefix]


def _gpu(series: Mapping[str, Any], places: Mapping[tuple[str, str], int]) -> tuple[int, str | None]:
    """Return index and UUID of a series, whose id is a PCI address, a number or a UUID."""
    name = str(series["id"])
    place = places.get((series["hostname"], name))
    index = int(name) if name.isdigit() else place if place is not None else 0
    return index, name if name.startswith("GPU-") else None


def _entries(rows: Mapping[Key, dict[str, float]]) -> Iterator[Entry]:
    for (family, time_ns, node, gpu, uuid), columns in sorted(rows.items(), key=lambda item: item[0][:3]):
        device = {"gpu": gpu, "uuid": uuid, "source": "clustercockpit"} if family == "gpu" else {}
        yield family, {"time_ns": time_ns, "node": node, **device, **columns}


def _about(path: Path) -> Any:  # noqa: ANN401 - JSON
    plain = path.with_name("meta.json")
    return _json(plain if plain.exists() else path.with_name("meta.json.gz"))


def _json(path: Path) -> Any:  # noqa: ANN401 - JSON
    with storage_errors(path, "read"):
        content = path.read_bytes()
    try:
        return json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path.name} cannot be unpacked: {error}") from error
