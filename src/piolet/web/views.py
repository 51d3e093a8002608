"""What pages say about a job, computed from its logbook; each is a question that `kept` asks once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from piolet.data.jobs import findings
from piolet.logbook.records import Findings
from piolet.score.overview import Overview, overview
from piolet.score.report import render
from piolet.watch import Book, Metric, VisibleJobs
from piolet.watch.book import Event
from piolet.watch.diagnosis.diagnose import diagnose
from piolet.watch.quality import DataQuality

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
SPARK_POINTS = 60


@dataclass(frozen=True, slots=True)
class JobView:
    """What explains a job, beyond a glance: its score with phases and advice, and all metrics that have a value."""

    overview: Overview
    metrics: tuple[Metric, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What diagnosis concludes, and what the data behind it are worth; `start_ns` is the start of the program."""

    findings: Findings
    quality: DataQuality
    start_ns: int | None


def job_view(book: Book) -> JobView:
    """Compute the view of a job."""
    return JobView(overview(book.reader), book.metrics())


def events(book: Book) -> tuple[Event, ...]:
    """Return what happened in a job, the most telling of it."""
    return book.events(most=MOST_EVENTS)


def first_plots(metrics: Sequence[Metric]) -> list[Metric]:
    """Return the plots of a page, of the metrics that have values."""
    return [metric for each in FIRST_PLOTS if (metric := Metric(*each)) in metrics]


def judged(book: Book, jobs: VisibleJobs) -> Judged:
    """Return the findings that were saved when the job had ended, else what diagnosis says now, beside other `jobs`."""
    quality, saved, interval = book.quality(), book.findings(), book.interval
    final = saved if saved and saved.complete else None
    return Judged(final or diagnose(book, jobs=jobs), quality, interval.start_ns if interval else None)


def spark(book: Book) -> tuple[float | None, ...]:
    """Return how active the SMs of a job's GPUs were over its time, in few values; () if nobody knows."""
    found = book.series(Metric("gpu", "sm_active_ratio"), points=SPARK_POINTS) if book.interval else None
    return found.lines[0].mean if found and found.lines else ()


def report(book: Book) -> str:
    """Return the report's page, made anew: the file in the logbook is the user's own and may say anything."""
    return render(book.reader, judge=findings)
