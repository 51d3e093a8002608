"""What changed between two jobs: set-up, nodes, code, environment, data, and how long each phase took.

It says what differs and judges nothing; whether one used its GPUs better is the saturation score's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from piolet.core.nodeset import NodeSet
from piolet.logbook.environments import environment
from piolet.logbook.records import JobRecord
from piolet.watch import steps
from piolet.watch.book import Book

NOTHING = "-"
ALIKE = 0.05
"""Phases whose times differ by less than this share are not told: no two runs are the same to the second."""


class Part(StrEnum):
    """What of a job it is that changed."""

    SETUP = "set-up"
    NODES = "nodes"
    CODE = "code"
    ENVIRONMENT = "environment"
    DATA = "data"
    PHASES = "phases"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not the same in both jobs, in words."""

    part: Part
    name: str
    before: str
    after: str


def changes(before: Book, after: Book) -> tuple[Change, ...]:
    """Return what differs, part by part."""
    told = (*_of_jobs(before.job, after.job), *_of_environments(before, after))
    differing = [each for each in told if each.before != each.after]
    order = list(Part)
    return tuple(sorted([*differing, *_of_phases(before, after)], key=lambda each: order.index(each.part)))


def phases(book: Book) -> dict[str, float]:
    """Return the seconds that the program spent in each phase that it told, and the median of its steps."""
    if book.interval is None:
        return {}
    found = book.reader.database.execute(
        """
        WITH told AS (
            SELECT code, time_ns, coalesce(lead(time_ns) OVER (ORDER BY time_ns), $end) AS until FROM events
            WHERE kind = 'phase' AND time_ns >= $start AND time_ns < $end
        )
        SELECT code, sum(until - time_ns) / 1e9 FROM told GROUP BY code ORDER BY min(time_ns)
        """,
        {"start": book.interval.start_ns, "end": book.interval.end_ns},
    ).fetchall()
    step_s = steps.median_s(book.reader)
    return {str(name): float(seconds) for name, seconds in found} | ({"a step": step_s} if step_s else {})


def _of_jobs(before: JobRecord, after: JobRecord) -> Iterator[Change]:
    yield Change(Part.SETUP, "command", *(" ".join(job.command) for job in (before, after)))
    yield Change(Part.SETUP, "account", *(job.account or NOTHING for job in (before, after)))
    yield Change(Part.SETUP, "GPUs", *(_gpus(job) for job in (before, after)))
    nodes = [NodeSet([held.node for held in job.allocation if held.used]) for job in (before, after)]
    refused = [NodeSet([each.node for each in job.refused]) for job in (before, after)]
    yield Change(Part.NODES, "used", *(str(each) or NOTHING for each in nodes))
    yield Change(Part.NODES, "refused", *(str(each) or NOTHING for each in refused))
    for name in sorted(before.versions.keys() | after.versions.keys()):
        yield Change(Part.CODE, name, *(job.versions.get(name, NOTHING) for job in (before, after)))


def _of_environments(before: Book, after: Book) -> Iterator[Change]:
    values = [{key: value for key, value, _ in environment(book.logbook)} for book in (before, after)]
    for key in sorted(values[0].keys() | values[1].keys()):
        part = Part.DATA if key.startswith("mounts") else Part.ENVIRONMENT
        yield Change(part, key, *(each.get(key, NOTHING) for each in values))


def _of_phases(before: Book, after: Book) -> Iterator[Change]:
    first, second = phases(before), phases(after)
    for name in (*first, *(name for name in second if name not in first)):
        times = first.get(name), second.get(name)
        known = [time for time in times if time is not None]
        if len(known) < len(times) or abs(known[1] - known[0]) > ALIKE * max(known):
            yield Change(Part.PHASES, name, *(NOTHING if time is None else f"{time:.3g} s" for time in times))


def _gpus(job: JobRecord) -> str:
    models = Counter(gpu.model or "GPU" for _, gpu in job.gpus)
    return ", ".join(f"{count} x {model}" for model, count in sorted(models.items())) or NOTHING
