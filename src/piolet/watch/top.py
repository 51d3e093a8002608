"""What a job does right now: the last half minute of every GPU, the step, and the findings so far."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from piolet.core.nouns import Interval
from piolet.logbook.records import Diagnosis
from piolet.watch.book import Book
from piolet.watch.diagnosis.diagnose import diagnose
from piolet.watch.series import SECOND_NS, Line, Metric, Split

LATEST_S = 30.0
SM = Metric("gpu", "sm_active_ratio")


@dataclass(frozen=True, slots=True)
class NodeNow:
    """A node and the SM activity of its GPUs (0..1) in their order."""

    node: str
    sm: tuple[float, ...]

    @property
    def lowest(self) -> float:
        """The activity of the GPU that does least."""
        return min(self.sm)


@dataclass(frozen=True, slots=True)
class Now:
    """A job now. `running_s` since the program began; `step` and `steps_per_s` are None where it does not tell them.

    `coverage_ratio` is the share of the expected GPU samples behind `nodes`, None if nobody knows what to expect.
    """

    running_s: float
    step: int | None
    steps_per_s: float | None
    coverage_ratio: float | None
    nodes: tuple[NodeNow, ...]
    findings: tuple[Diagnosis, ...]


def now(book: Book) -> Now | None:
    """Return what the job does now, None while nothing was recorded; of an ended job, what it did at its end."""
    span = book.interval
    if span is None:
        return None
    latest = Interval(max(span.start_ns, span.end_ns - round(LATEST_S * SECOND_NS)), span.end_ns)
    series = book.series(SM, split=Split.DEVICE, interval=latest, points=1)
    step, rate = _steps(book, latest)
    return Now(span.duration_s, step, rate, series.coverage_ratio, _nodes(series.lines), diagnose(book).findings)


def _nodes(lines: tuple[Line, ...]) -> tuple[NodeNow, ...]:
    """Return the nodes, those with the least active GPU first."""
    each = [NodeNow(node, tuple(line.mean[-1] for line in of_node)) for node, of_node in groupby(lines, _node)]
    return tuple(sorted(each, key=lambda found: (found.lowest, found.node)))


def _node(line: Line) -> str:
    return line.node


def _steps(book: Book, latest: Interval) -> tuple[int | None, float | None]:
    found = book.reader.database.execute(
        """
        SELECT max(step), (max(step) - min(step)) / nullif((max(time_ns) - min(time_ns)) / 1e9, 0)
        FROM user WHERE step IS NOT NULL AND time_ns >= $start AND time_ns < $end
        """,
        {"start": latest.start_ns, "end": latest.end_ns},
    ).fetchall()[0]
    return (None if found[0] is None else int(found[0])), found[1]
