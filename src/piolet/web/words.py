"""Numbers and states in words, for the templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from piolet.logbook.records import ENDED, Evidence
from piolet.logbook.units import ending
from piolet.score.advice import gain
from piolet.score.drawing import clock
from piolet.score.stages import summed
from piolet.score.words import NOTHING, duration, energy, percent, phase_times
from piolet.watch import JobSummary, Metric, words

_LEAST_MARGIN_S = 30.0
_GOOD, _LIVE, _WARN = {"COMPLETED"}, {"RUNNING", "PENDING", "COMPLETING"}, {"CANCELLED", "TIMEOUT", "PREEMPTED"}


def stamp(time_ns: int | None) -> str:
    """Return a time as ``2026-01-31 12:00:05 UTC``."""
    if time_ns is None:
        return NOTHING
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def tone(state: str) -> str:
    """Return how a state looks: good, live, warn or bad; plain if nobody knows how it ended."""
    tones = (("good", _GOOD), ("live", _LIVE), ("warn", _WARN), ("plain", {ENDED}))
    return next((name for name, states in tones if state in states), "bad")


def address(job: JobSummary) -> str:
    """Return the path of a job's page."""
    return f"/jobs/{quote(job.cluster, safe='')}/{quote(job.job_id, safe='')}"


def took(job: JobSummary) -> str:
    """Return how long a job took; a dash while it runs."""
    known = job.started_ns is not None and job.ended_ns is not None
    return duration(((job.ended_ns or 0) - (job.started_ns or 0)) / 1e9 if known else None)


def plotted(fact: Evidence, job: JobSummary, start_ns: int | None) -> str:
    """Return the address of the plot that shows a fact, over its interval with as much again around it; "" for none."""
    if not fact.family or not fact.column:
        return ""
    query = {"plot": f"{fact.family}.{fact.column}"}
    if start_ns is not None and fact.from_ns is not None and fact.to_ns is not None:
        margin_s = max(_LEAST_MARGIN_S, (fact.to_ns - fact.from_ns) / 2e9)
        query["from"] = f"{max(0.0, (fact.from_ns - start_ns) / 1e9 - margin_s):.1f}"
        query["to"] = f"{(fact.to_ns - start_ns) / 1e9 + margin_s:.1f}"
    there = f"/nodes/{quote(fact.node, safe='')}" if fact.node else ""
    return f"{address(job)}{there}?{urlencode(query)}#plots"


def called(metric: Metric) -> str:
    """Return a metric's name for people: its column without the unit."""
    return metric.column.removesuffix(ending(metric.column) if metric.family != "user" else "").replace("_", " ")


FILTERS: Mapping[str, Callable[..., Any]] = {
    "address": address,
    "called": called,
    "clock": clock,
    "fact": words.fact,
    "gain": gain,
    "never": words.never,
    "plotted": plotted,
    "duration": duration,
    "energy": energy,
    "took": took,
    "percent": percent,
    "phase_times": phase_times,
    "shares": words.shares,
    "stamp": stamp,
    "summed": lambda score: summed(score.phases),
    "tone": tone,
    "troubles": lambda found: list(words.troubles(found)),
}
