"""GSSR, the GPU saturation scorer of CSCS: the JSON files of 0.x, one a process, and the CSV files of 2.x, one a node.

0.x keeps no time of a sample: they are spread evenly between the start and the end. 2.x writes the seconds since its
start, and 0 for every number above two thousand million: there, a link's 0 is unknown.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from piolet.logbook.importing.recording import SECOND_NS, Entry, Given, Recording, begun_ns, text_of, wrong
from piolet.tools.dcgm import BY_SYMBOL, BY_TAG, Field

_AVERAGE = "_avg"
_HEADER = "timestamp,gpuId"
_CAPPED = {f"{link}_{way}_bytes_per_s" for link in ("pcie", "nvlink", "c2c") for way in ("tx", "rx")}


def recognises(path: Path, head: str) -> bool:
    """Return whether the file is one of GSSR's recordings."""
    return head.startswith(_HEADER) or (path.suffix == ".json" and '"sampling_time"' in head and '"metadata"' in head)


def read(path: Path, given: Given) -> Recording:
    """Read one file."""
    text = text_of(path)
    return _csv(path, text, given) if text.startswith(_HEADER) else _json(text)


def _json(text: str) -> Recording:
    content = json.loads(text)
    about, gpus = content["metadata"], content["data"]
    start_ns = round(float(about["start_time"]) * SECOND_NS)
    period_ns = float(about["elapsed"]) * SECOND_NS / max(1, about["n_samples"])
    return Recording(
        tool="gssr",
        rows=_json_rows(str(about["hostname"]), gpus, start_ns, period_ns),
        interval_s=period_ns / SECOND_NS,
        job_id=str(about["job_id"]),
        name=str(about.get("label") or ""),
        command=_command(about.get("cmd")),
        started_ns=start_ns,
        ended_ns=round(float(about["end_time"]) * SECOND_NS),
        left_out=frozenset(name for metrics in gpus.values() for name in metrics if name not in BY_TAG),
    )


def _command(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - a word or words, as the version has it
    return tuple(map(str, value)) if isinstance(value, list) else (str(value or ""),)


def _json_rows(
    node: str, gpus: Mapping[str, Mapping[str, list[float]]], start_ns: int, period_ns: float
) -> Iterator[Entry]:
    for gpu, metrics in gpus.items():
        known = {name: values for name, values in metrics.items() if name in BY_TAG}
        for place, values in enumerate(zip(*known.values(), strict=True)):
            row = {BY_TAG[name].column: BY_TAG[name].value(value) for name, value in zip(known, values, strict=True)}
            time_ns = start_ns + round(place * period_ns)
            yield "gpu", {"time_ns": time_ns, "node": node, "gpu": int(gpu), "source": "gssr"} | row


def _csv(path: Path, text: str, given: Given) -> Recording:
    about = _about(path)
    rows = list(csv.DictReader(text.splitlines()))
    last_s = max((int(row["timestamp"]) for row in rows if row["timestamp"]), default=0)
    date = about.get("date")
    start_ns = given.started_ns
    if start_ns is None and date:
        start_ns = round(datetime.strptime(date, "%Y-%m-%dT%H:%M:%S%z").timestamp() * SECOND_NS)
    start_ns = begun_ns(path, given, last_s) if start_ns is None else start_ns
    averages = {name for name in rows[0] if name and name.endswith(_AVERAGE)} if rows else set()
    return Recording(
        tool="gssr",
        rows=_csv_rows(path, rows, given.node or path.stem, start_ns),
        interval_s=1.0,
        job_id=str(about.get("jobid") or ""),
        cluster=str(about.get("cluster") or ""),
        name=str(about.get("jobname") or ""),
        command=(str(about["executable"]),) if about.get("executable") else (),
        started_ns=start_ns,
        ended_ns=start_ns + (last_s + 1) * SECOND_NS,
        left_out=frozenset(name for name in averages if name.removesuffix(_AVERAGE) not in BY_SYMBOL),
    )


def _csv_rows(path: Path, rows: list[dict[str, str]], node: str, start_ns: int) -> Iterator[Entry]:
    for row in rows:
        columns = {}
        try:
            for name, text in row.items():
                field = BY_SYMBOL.get(name.removesuffix(_AVERAGE)) if name.endswith(_AVERAGE) else None
                if field and not field.column.endswith("_j"):  # of the energy it is the difference
                    columns[field.column] = _average(field, float(text))
            time_ns = start_ns + int(row["timestamp"]) * SECOND_NS
            identity = {"time_ns": time_ns, "node": node, "gpu": int(row["gpuId"]), "source": "gssr"}
        except (TypeError, ValueError, AttributeError) as error:
            raise wrong(path, "not a line of GSSR's table", str(row)) from error
        yield "gpu", identity | columns


def _average(field: Field, value: float) -> float | None:
    return None if field.column in _CAPPED and not value else field.value(value)


def _about(path: Path) -> Mapping[str, Any]:
    """Return the JSON that the recorder writes beside its tables, as far as it can be found."""
    for directory in (path.parent, path.parent.parent):
        for candidate in sorted(directory.glob("*.json")):
            try:
                content = json.loads(text_of(candidate))
            except ValueError:
                continue
            if isinstance(content, dict) and "jobid" in content:
                return content
    return {}
