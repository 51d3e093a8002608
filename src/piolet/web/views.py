"""What pages show of a job, computed from its open book and kept while the logbook does not change."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock

from piolet.logbook.layout import Logbook
from piolet.logbook.schema import FAMILIES
from piolet.score import drawing
from piolet.score.measure import window_of
from piolet.score.overview import Overview, overview
from piolet.score.report import lowest, render
from piolet.score.timeline import heat_rows
from piolet.watch import Book, Metric
from piolet.watch.book import Event

FIRST_PLOTS = (
    ("user", "loss"),
    ("gpu", "sm_active_ratio"),
    ("gpu", "tensor_active_ratio"),
    ("gpu", "dram_active_ratio"),
    ("gpu", "nvlink_rx_bytes_per_s"),
    ("gpu", "power_w"),
    ("gpu", "temperature_c"),
    ("host", "cpu_busy_ratio"),
    ("host", "cpu_iowait_ratio"),
    ("host", "net_rx_bytes_per_s"),
)
"""The plots of a job's page, those of them that have values; all others are a choice away."""

MOST_EVENTS = 40
_MOST_KEPT = 64


@dataclass(frozen=True, slots=True)
class Heat:
    """The heat map: a picture with a pixel a cell, its rows' names, its height on the page and the job's length."""

    image: str
    names: tuple[str, ...]
    height_px: int
    length_s: float


@dataclass(frozen=True, slots=True)
class JobView:
    """Everything that a job's page says without its plots; `stamp` tells which state of the logbook it shows."""

    stamp: str
    overview: Overview
    heat: Heat | None
    metrics: tuple[Metric, ...]
    plots: tuple[Metric, ...]
    events: tuple[Event, ...]


class Views:
    """The views of jobs, the latest ones kept; safe to use from several threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], JobView] = OrderedDict()
        self._lock = Lock()

    def of(self, book: Book) -> JobView:
        """Return the view of a book, computed anew only when its files have changed."""
        key, now = (book.grant.job.cluster, book.grant.job.job_id), stamp(book.logbook)
        with self._lock:
            kept = self._kept.get(key)
        if kept and kept.stamp == now:
            return kept
        view = job_view(book, now)
        with self._lock:
            self._kept[key] = view
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return view


def stamp(logbook: Logbook) -> str:
    """Return what changes when a logbook does: from the times of its records and of its directories of segments."""
    paths = (logbook.job, logbook.outcome, logbook.findings, *(logbook.family(name) for name in FAMILIES))
    times = [path.stat().st_mtime_ns if path.exists() else 0 for path in paths]
    return hashlib.sha256(repr(times).encode()).hexdigest()[:16]


def job_view(book: Book, now: str) -> JobView:
    """Compute the view of a book."""
    shown = overview(book.reader)
    metrics = book.metrics()
    wanted = [Metric(*each) for each in FIRST_PLOTS]
    return JobView(
        stamp=now,
        overview=shown,
        heat=heat(book),
        metrics=metrics,
        plots=tuple(metric for metric in wanted if metric in metrics),
        events=book.events(most=MOST_EVENTS),
    )


def heat(book: Book) -> Heat | None:
    """Draw the heat map of a book whose overview was taken; None without samples."""
    window = window_of(book.reader, book.job)
    rows = heat_rows(book.reader, window) if window else ()
    if not window or not rows:
        return None
    height_px = max(3, min(16, 640 // len(rows))) * len(rows)
    return Heat(drawing.heat_image(rows), tuple(row.name for row in rows), height_px, window.duration_s)


def report(book: Book) -> str:
    """Return the report's page, made anew: the file in the logbook is the user's own and may say anything."""
    return render(book.reader)


def shown_gpus(view: JobView, node: str = "") -> Iterator[object]:
    """Yield the GPUs of the table: those of one node, or the lowest ones of the job."""
    gpus = view.overview.score.gpus
    yield from ([gpu for gpu in gpus if gpu.node == node] if node else lowest(gpus))
