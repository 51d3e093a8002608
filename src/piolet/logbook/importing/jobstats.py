"""The summary that Princeton's jobstats leaves in Slurm's AdminComment: ``JS1:`` and then base64 of gzip of JSON.

It is one figure for the whole job: the GPU's mean utilisation and its most memory, the mean of the processors. So a GPU
gets one sample.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from piolet.logbook.importing.recording import SECOND_NS, Entry, Given, Recording, begun_ns, text_of, wrong

_PREFIX = "JS1:"
_NOTHING = {"JS1:Short", "JS1:None"}
_MOST_BYTES = 64 << 20


def recognises(path: Path, head: str) -> bool:  # noqa: ARG001 - by its content
    """Return whether the file holds such a summary."""
    return head.lstrip().startswith(_PREFIX)


def read(path: Path, given: Given) -> Recording:
    """Read one summary."""
    text = text_of(path).strip()
    if text in _NOTHING:
        raise wrong(path, "jobstats kept nothing of this job: it was too short, or not measured", text)
    duration_s, nodes = _unpacked(text)
    start_ns = begun_ns(path, given, duration_s)
    end_ns = start_ns + round(duration_s * SECOND_NS)
    return Recording("jobstats", _rows(nodes, duration_s, end_ns - 1), duration_s, started_ns=start_ns, ended_ns=end_ns)


def _unpacked(text: str) -> tuple[float, Mapping[str, Any]]:
    packed = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    try:
        with gzip.open(BytesIO(packed)) as file:
            content = file.read(_MOST_BYTES + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"it cannot be unpacked: {error}") from error
    if len(content) > _MOST_BYTES:
        raise ValueError("it unpacks to more than any summary")
    found = json.loads(content)
    return float(found["total_time"]), dict(found["nodes"])


def _rows(nodes: Mapping[str, Any], duration_s: float, time_ns: int) -> Iterator[Entry]:
    for node, about in nodes.items():
        identity = {"time_ns": time_ns, "node": node}
        busy = about["total_time"] / (about["cpus"] * duration_s) if about.get("cpus") and duration_s else None
        memory = {"memory_used_bytes": about.get("used_memory"), "memory_limit_bytes": about.get("total_memory")}
        cores = None if busy is None else busy * about["cpus"]
        yield "cgroup", identity | memory | {"cpu_cores": cores, "cpu_limit_cores": about.get("cpus")}
        for gpu, percent in (about.get("gpu_utilization") or {}).items():
            used = (about.get("gpu_used_memory") or {}).get(gpu)
            row = {"gpu": int(gpu), "gpu_util_ratio": percent / 100, "memory_used_bytes": used, "source": "jobstats"}
            yield "gpu", identity | row
