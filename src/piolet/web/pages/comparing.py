"""Two jobs side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from piolet.core.errors import UsageError
from piolet.logbook.reader import rereading
from piolet.score import words
from piolet.score.compare import Comparison, compare_readers
from piolet.watch import JobFilter
from piolet.watch.compare import Change, changes
from piolet.web.pages.job import opened
from piolet.web.rendering import page

MOST_OFFERED = 100


@dataclass(frozen=True, slots=True)
class Row:
    """One thing of both jobs, in words."""

    name: str
    before: str
    after: str

    @property
    def differs(self) -> bool:
        """Whether the two are not the same."""
        return self.before != self.after


@rereading
def compare(request: Request) -> Response:
    """The page: a choice of two jobs, and what differs between them."""
    first, second = request.query_params.get("a", ""), request.query_params.get("b", "")
    found: Comparison | None = None
    figures: tuple[Row, ...] = ()
    changed: tuple[Change, ...] = ()
    problem = ""
    if first and second:
        with opened(request, first) as before, opened(request, second) as after:
            changed = changes(before, after)
            try:
                found = compare_readers(before.reader, after.reader)
                figures = tuple(_figures(found))
            except UsageError as error:
                problem = error.what
    offered = request.state.jobs.find(JobFilter(), most=MOST_OFFERED).jobs
    return page(
        request,
        "compare.html.jinja",
        first=first,
        second=second,
        found=found,
        figures=figures,
        changed=changed,
        problem=problem,
        offered=offered,
    )


def _figures(found: Comparison) -> Iterator[Row]:
    before, after = found.before, found.after
    yield Row("Saturation", words.percent(before.score), words.percent(after.score))
    for name, heading, _ in words.FACTORS:
        shares = [getattr(score.factors, name) if score.factors else None for score in (before, after)]
        yield Row(heading, words.percent(shares[0]), words.percent(shares[1]))
    for heading, name in (("Compute", "compute"), ("Memory", "memory"), ("Network", "network")):
        yield Row(heading, words.percent(getattr(before, name)), words.percent(getattr(after, name)))
    yield Row("Ran", words.duration(before.wall_s), words.duration(after.wall_s))
    yield Row("Start-up", words.duration(before.startup_s), words.duration(after.startup_s))
    yield Row("Energy", words.energy(before.energy_j), words.energy(after.energy_j))
    yield Row("Coverage", words.percent(before.coverage_ratio), words.percent(after.coverage_ratio))
    yield Row("Held back by", before.label.bottleneck, after.label.bottleneck)
