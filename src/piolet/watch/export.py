"""The samples of a running job as metrics (see openmetrics): the newest of each series, or all since a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from piolet.logbook.openmetrics import (
    EXPORTED,
    GPU_INFO,
    INFO,
    JOB,
    LATEST_S,
    USER,
    Block,
    Exported,
    Sample,
    exported,
    labels_of,
    metric_name,
    shown,
)
from piolet.logbook.schema import FAMILIES, Family
from piolet.watch.book import Book
from piolet.watch.series import SECOND_NS, Metric, value


def exposition(book: Book, now_ns: int) -> str:
    """Return the newest sample of every series, none older than LATEST_S, and whose the nodes and GPUs are."""
    return shown(blocks(book, now_ns - round(LATEST_S * SECOND_NS), newest=True))


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
    columns = family.numbers
    values = [value(Metric(family.name, column)) for column in columns]
    rows = _rows(book, family.name, labels_of(family), values, since_ns, newest=newest)
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


def _nodes(book: Book) -> Iterator[dict[str, object]]:
    return ({"node": held.node} | _job(book) for held in book.job.allocation if held.used)


def _gpus(book: Book) -> Iterator[dict[str, object]]:
    return ({"node": node, "gpu": gpu.index, "uuid": gpu.uuid} | _job(book) for node, gpu in book.job.gpus)


def _job(book: Book) -> dict[str, object]:
    told = book.grant.job
    return dict(zip(JOB, (told.job_id, told.cluster, told.user, told.account, told.name), strict=True))
