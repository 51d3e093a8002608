"""What pages say about a job, computed from its logbook; each is a question that `kept` asks once."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from piolet.data.jobs import findings
from piolet.logbook.records import Findings
from piolet.score import drawing
from piolet.score.measure import window_of
from piolet.score.model import GpuScore
from piolet.score.overview import NodeStory, Overview, Role, overview
from piolet.score.report import lowest, render
from piolet.score.timeline import heat_rows
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
class Heat:
    """The heat map: a picture with a pixel a cell, its rows' names, its height on the page and the job's length."""

    image: str
    names: tuple[str, ...]
    height_px: int
    length_s: float


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node in the table of nodes: its story, and of its GPUs the mean and the lowest saturation, power and heat."""

    story: NodeStory
    saturation: float | None
    lowest: float | None
    power_w: float | None
    hottest_c: float | None
    throttled_s: float

    @property
    def plain(self) -> bool:
        """Whether there is nothing to tell of it: it was used, every check passed, nothing held its GPUs back."""
        return self.story.role is Role.USED and not self.story.not_passed and not self.throttled_s


@dataclass(frozen=True, slots=True)
class JobView:
    """Everything that a job's page says without its plots and its findings."""

    overview: Overview
    heat: Heat | None
    metrics: tuple[Metric, ...]
    plots: tuple[Metric, ...]
    events: tuple[Event, ...]
    nodes: tuple[NodeRow, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What diagnosis concludes, and what the data behind it are worth; `start_ns` is the start of the program."""

    findings: Findings
    quality: DataQuality
    start_ns: int | None


def job_view(book: Book) -> JobView:
    """Compute the view of a job."""
    shown = overview(book.reader)
    metrics = book.metrics()
    wanted = [Metric(*each) for each in FIRST_PLOTS]
    return JobView(
        overview=shown,
        heat=heat(book),
        metrics=metrics,
        plots=tuple(metric for metric in wanted if metric in metrics),
        events=book.events(most=MOST_EVENTS),
        nodes=node_rows(shown),
    )


def judged(book: Book, jobs: VisibleJobs) -> Judged:
    """Return the findings that were saved when the job had ended, else what diagnosis says now, beside other `jobs`."""
    quality, saved, interval = book.quality(), book.findings(), book.interval
    final = saved if saved and saved.complete else None
    return Judged(final or diagnose(book, jobs=jobs), quality, interval.start_ns if interval else None)


def spark(book: Book) -> tuple[float | None, ...]:
    """Return how active the SMs of a job's GPUs were over its time, in few values; () if nobody knows."""
    found = book.series(Metric("gpu", "sm_active_ratio"), points=SPARK_POINTS) if book.interval else None
    return found.lines[0].mean if found and found.lines else ()


def node_rows(shown: Overview) -> tuple[NodeRow, ...]:
    """Return the table of nodes: those of which there is something to tell first, then the least saturated."""
    gpus: dict[str, list[GpuScore]] = {}
    for gpu in shown.score.gpus:
        gpus.setdefault(gpu.node, []).append(gpu)
    rows = [_node_row(story, gpus.get(story.node, [])) for story in shown.nodes]
    return tuple(sorted(rows, key=lambda row: (row.plain, 1.0 if row.saturation is None else row.saturation)))


def _node_row(story: NodeStory, gpus: Sequence[GpuScore]) -> NodeRow:
    scores = [gpu.score for gpu in gpus if gpu.score is not None]
    watts = [gpu.power_w for gpu in gpus if gpu.power_w is not None]
    return NodeRow(
        story,
        statistics.fmean(scores) if scores else None,
        min(scores, default=None),
        sum(watts) if watts else None,
        max((gpu.temperature_c for gpu in gpus if gpu.temperature_c is not None), default=None),
        max((gpu.throttled_s for gpu in gpus), default=0.0),
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
    return render(book.reader, judge=findings)


def shown_gpus(view: JobView, node: str = "") -> tuple[GpuScore, ...]:
    """Return the GPUs of the table: those of one node, or the lowest ones of the job."""
    gpus = view.overview.score.gpus
    return tuple(gpu for gpu in gpus if gpu.node == node) if node else tuple(lowest(gpus))
