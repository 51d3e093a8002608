"""The newest samples of a running job in Prometheus' text format, each with the time at which it was read.

A metric is called as its column, `piolet_gpu_power_w`, and has the labels node and device (for GPUs: gpu, uuid), but
no job: series go on from job to job. `piolet_job_info` and `piolet_job_gpu_info` say whose a node and a GPU are.
Processes and events are left out: they would make new series without end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from piolet.logbook.schema import FAMILIES, Family
from piolet.watch.book import Book
from piolet.watch.series import SECOND_NS, Metric, numeric, value

EXPORTED = tuple(name for name in FAMILIES if name not in {"proc", "events", "user"})
"""Families whose columns become metrics."""

USER = "piolet_user_value"
INFO = "piolet_job_info"
GPU_INFO = "piolet_job_gpu_info"

LATEST_S = 300.0
"""Older samples are not told: Prometheus itself calls a series stale after five minutes."""

_JOB = ("slurm_job", "cluster", "user", "account", "name")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True, slots=True)
class Exported:
    """A metric as Prometheus knows it; `labels` are the names that tell its series apart."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]


def exported() -> dict[str, Exported]:
    """Return every metric that a job may export, by name."""
    columns = (_of_column(FAMILIES[family], column) for family in EXPORTED for column in numeric(FAMILIES[family]))
    others = (
        Exported(USER, "gauge", "what the program reports, in its own unit", ("node", "rank", "name")),
        Exported(INFO, "gauge", "1: the job that runs on a node", ("node", *_JOB)),
        Exported(GPU_INFO, "gauge", "1: the job that runs on a GPU", ("node", "gpu", "uuid", *_JOB)),
    )
    return {each.name: each for each in (*columns, *others)}


def metric_name(family: str, column: str) -> str:
    """Return the name that a column has in Prometheus."""
    return f"piolet_{family}_{column}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a series; `time_ns` is None of an info series, which is true whenever it is told."""

    labels: Mapping[str, object]
    value: float
    time_ns: int | None


Block = tuple[Exported, list[Sample]]
"""A metric with its samples, ordered by series and time."""


def exposition(book: Book, now_ns: int) -> str:
    """Return the newest sample of every series, none older than LATEST_S, and whose the nodes and GPUs are."""
    return "".join(map(_shown, blocks(book, now_ns - round(LATEST_S * SECOND_NS), newest=True)))


def blocks(book: Book, since_ns: int, *, newest: bool = False) -> Iterator[Block]:
    """Yield every metric that has a sample since a time: all of them, or of each series the newest."""
    known = exported()
    for family in map(FAMILIES.__getitem__, EXPORTED):
        yield from _of_family(book, family, known, since_ns, newest=newest)
    rows = _rows(book, "user", known[USER].labels, [value(Metric("user", ""))], since_ns, newest=newest)
    told = [Sample(labels, found, time_ns) for time_ns, labels, (found,) in rows if found is not None]
    info = [Sample(labels, 1, None) for labels in _nodes(book)]
    gpus = [Sample(labels, 1, None) for labels in _gpus(book)]
    for name, samples in ((USER, told), (INFO, info), (GPU_INFO, gpus)):
        if samples:
            yield known[name], samples


def _of_family(
    book: Book, family: Family, known: Mapping[str, Exported], since_ns: int, *, newest: bool
) -> Iterator[Block]:
    columns = numeric(family)
    values = [value(Metric(family.name, column)) for column in columns]
    rows = _rows(book, family.name, _labels(family), values, since_ns, newest=newest)
    for place, column in enumerate(columns):
        told = ((labels, found[place], time_ns) for time_ns, labels, found in rows)
        if samples := [Sample(labels, each, time_ns) for labels, each, time_ns in told if each is not None]:
            yield known[metric_name(family.name, column)], samples


Row = tuple[int, dict[str, object], tuple[float | None, ...]]


def _rows(
    book: Book, family: str, labels: tuple[str, ...], values: list[str], since_ns: int, *, newest: bool
) -> list[Row]:
    """Return (time, labels, values) of the rows since a time, or of the newest row of every series."""
    names = ", ".join(f'"{name}"' for name in labels)
    only = f"QUALIFY row_number() OVER (PARTITION BY {names} ORDER BY time_ns DESC) = 1" if newest else ""
    found = book.reader.database.execute(
        f"""
        SELECT time_ns, {names}, {", ".join(values)} FROM "{family}" WHERE time_ns >= $since
        {only} ORDER BY {names}, time_ns
        """,  # noqa: S608 - known families and columns
        {"since": since_ns},
    ).fetchall()
    return [(row[0], dict(zip(labels, row[1 : len(labels) + 1], strict=True)), row[len(labels) + 1 :]) for row in found]


def _shown(block: Block) -> str:
    metric, samples = block
    head = f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n"
    return head + "".join(_line(metric.name, sample) for sample in samples)


def _line(name: str, sample: Sample) -> str:
    shown = ",".join(f'{label}="{label_text(content).translate(_ESCAPES)}"' for label, content in sample.labels.items())
    at = "" if sample.time_ns is None else f" {sample.time_ns // 1_000_000}"
    return f"{name}{{{shown}}} {sample.value!r}{at}\n"


def label_text(content: object) -> str:
    """Return the text of a label; empty for what is not known."""
    return "" if content is None else str(content)


def _labels(family: Family) -> tuple[str, ...]:
    keys = tuple(name for name in family.key if name != "time_ns")
    return (*keys, "uuid") if family.name == "gpu" else keys


def _of_column(family: Family, column: str) -> Exported:
    meaning = Metric(family.name, column).meaning
    kind = "counter" if "a counter" in meaning else "gauge"
    return Exported(metric_name(family.name, column), kind, meaning.replace("\\", r"\\"), _labels(family))


def _nodes(book: Book) -> Iterator[dict[str, object]]:
    return ({"node": held.node} | _job(book) for held in book.job.allocation if held.used)


def _gpus(book: Book) -> Iterator[dict[str, object]]:
    return ({"node": node, "gpu": gpu.index, "uuid": gpu.uuid} | _job(book) for node, gpu in book.job.gpus)


def _job(book: Book) -> dict[str, object]:
    told = book.grant.job
    return dict(zip(_JOB, (told.job_id, told.cluster, told.user, told.account, told.name), strict=True))
