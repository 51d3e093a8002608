"""Samples in Prometheus' text format, each with the time at which it was read.

A metric is called as its column, `piolet_gpu_power_w`, and has the labels node and device (for GPUs: gpu, uuid), but
no job: series go on from job to job. `piolet_job_info` and `piolet_job_gpu_info` say whose a node and a GPU are.
Processes and events are left out: they would make new series without end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from piolet.logbook.schema import FAMILIES, Family

EXPORTED = tuple(name for name in FAMILIES if name not in {"proc", "events", "user"})
"""Families whose columns become metrics."""

USER = "piolet_user_value"
INFO = "piolet_job_info"
GPU_INFO = "piolet_job_gpu_info"
JOB = ("slurm_job", "cluster", "user", "account", "name")
"""The labels that say which job."""

LATEST_S = 300.0
"""Older samples are not told: Prometheus itself calls a series stale after five minutes."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True, slots=True)
class Exported:
    """A metric as Prometheus knows it; `labels` are the names that tell its series apart."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a series; `time_ns` is None of an info series, which is true whenever it is told."""

    labels: Mapping[str, object]
    value: float
    time_ns: int | None


Block = tuple[Exported, list[Sample]]
"""A metric with its samples, ordered by series and time."""


def exported() -> dict[str, Exported]:
    """Return every metric that a job may export, by name."""
    columns = (_of_column(FAMILIES[family], name) for family in EXPORTED for name in FAMILIES[family].numbers)
    others = (
        Exported(USER, "gauge", "what the program reports, in its own unit", ("node", "rank", "name")),
        Exported(INFO, "gauge", "1: the job that runs on a node", ("node", *JOB)),
        Exported(GPU_INFO, "gauge", "1: the job that runs on a GPU", ("node", "gpu", "uuid", *JOB)),
    )
    return {each.name: each for each in (*columns, *others)}


def metric_name(family: str, column: str) -> str:
    """Return the name that a column has in Prometheus."""
    return f"piolet_{family}_{column}"


def labels_of(family: Family) -> tuple[str, ...]:
    """Return the columns that tell the series of a family apart."""
    keys = tuple(name for name in family.key if name != "time_ns")
    return (*keys, "uuid") if family.name == "gpu" else keys


def shown(blocks: Iterable[Block]) -> str:
    """Return metrics as text."""
    return "".join(_shown(*block) for block in blocks)


def label_text(content: object) -> str:
    """Return the text of a label; empty for what is not known."""
    return "" if content is None else str(content)


def _shown(metric: Exported, samples: Iterable[Sample]) -> str:
    head = f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
    return head + "".join(_line(metric.name, sample) for sample in samples)


def _line(name: str, sample: Sample) -> str:
    labels = ",".join(
        f'{label}="{label_text(content).translate(_ESCAPES)}"' for label, content in sample.labels.items()
    )
    at = "" if sample.time_ns is None else f" {sample.time_ns // 1_000_000}"
    return f"{name}{{{labels}}} {sample.value!r}{at}\n"


def _of_column(family: Family, column: str) -> Exported:
    meaning = family.meanings[column]
    kind = "counter" if "a counter" in meaning else "gauge"
    return Exported(metric_name(family.name, column), kind, meaning.replace("\\", r"\\"), labels_of(family))
