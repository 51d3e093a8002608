"""The report: one self-contained page per logbook. It loads nothing: style, script and pictures are inside.

Everything that came from the job (names, commands, messages) reaches the page through Jinja's autoescape only.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piolet import __version__
from piolet.core.files import write_text
from piolet.core.nodeset import NodeSet
from piolet.core.nouns import Finding
from piolet.core.text import count, plural, size
from piolet.logbook.layout import Logbook
from piolet.logbook.reader import Reader, read, rereading
from piolet.logbook.records import JobRecord
from piolet.logbook.storage import JobStorage, of_reader
from piolet.score import advice, drawing, pictures, words
from piolet.score.measure import Window, window_of
from piolet.score.model import GpuScore, JobScore
from piolet.score.overview import NodeStory, Overview, Role, overview
from piolet.score.stages import summed
from piolet.score.terminal import what_happened
from piolet.score.timeline import Event, Timeline, timeline

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_GPUS = 48
"""Rows of the per-GPU table; the lowest ones if there are more."""

MOST_NODES = 32
"""Nodes that are shown, those with something to tell first; and rows of the data quality, the worst first."""

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the waterfall: the share of GPU time that is left, and what was lost since the row before."""

    name: str
    meaning: str
    left: float
    lost: float
    factor: float | None
    largest: bool = False


@rereading
def write_report(logbook: Logbook, path: Path | None = None) -> Path:
    """Write the report of `logbook` to `path` (default: report.html in the logbook) and return where it is.

    Raises:
        ParseError: job.json or outcome.json cannot be read.
        StorageError: the page cannot be written.
    """
    with read(logbook) as reader:
        return write_page(reader, overview(reader), path)


def write_page(reader: Reader, view: Overview, path: Path | None = None) -> Path:
    """Write the report of an open logbook whose overview is known; see write_report."""
    path = path or reader.logbook.report
    write_text(path, render(reader, view))
    return path


Judge = Callable[[JobStorage], Sequence[Finding]]
"""What is to be known of a job's storage: `piolet.data.jobs.findings`, which the callers bring."""


def _nothing(found: JobStorage) -> Sequence[Finding]:  # noqa: ARG001 - a Judge
    return ()


def render(
    reader: Reader,
    view: Overview | None = None,
    weights: Mapping[str, float] | None = None,
    judge: Judge = _nothing,
) -> str:
    """Return the page as HTML text; `view` is the overview of the reader, if it is known already.

    With `weights` the first plot is that view of compute, memory and network, named as such. `judge` says what the
    figures of the job's storage mean.
    """
    view = view or overview(reader)
    window = window_of(reader, view.job)  # the overview has scored the job, so the tables are there
    storage = of_reader(reader, view.job)
    over_time = timeline(reader, window, weights) if window else None
    judged = judge(storage) if storage else ()
    return page(view, over_time, window, weights or {}, storage=storage, judged=judged)


def page(
    view: Overview,
    over_time: Timeline | None,
    window: Window | None,
    weights: Mapping[str, float],
    *,
    storage: JobStorage | None = None,
    judged: Sequence[Finding] = (),
) -> str:
    """Return the page from what was read; pure."""
    script = (_HERE / "static/report.js").read_text(encoding="utf-8")
    score = view.score
    return (
        templates()
        .get_template("report.html.jinja")
        .render(
            view=view,
            job=view.job,
            score=score,
            command=shlex.join(view.job.command),
            facts=facts(view),
            held=held(view.job),
            stacks=NodeSet(view.stacks),
            steps=waterfall(score),
            time=over_time,
            panels=pictures.panels(over_time, weights),
            bounds=words.bounds(score),
            metric_panels=pictures.metric_panels(over_time),
            phases=pictures.phase_bars(score),
            phase_sums=summed(score.phases) if len(score.phases) > 1 else (),
            marks=pictures.marks(over_time),
            ticks=drawing.time_ticks(over_time.length_s) if over_time else (),
            heat=pictures.heat(over_time.heat) if over_time else (),
            gpus=lowest(score.gpus),
            nodes=eventful(view.nodes),
            storage=storage,
            judged=judged,
            gap_rows=_gap_rows(view, window),
            data=pictures.data(over_time),
            style=page_style("report.css"),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            version=__version__,
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )


def page_style(*names: str) -> str:
    """Return the style sheets of these names as one text."""
    return "".join((_HERE / "static" / name).read_text(encoding="utf-8") for name in names)


def waterfall(score: JobScore) -> tuple[Step, ...]:
    """Return the rows from allocated to saturated; empty without a score."""
    if score.factors is None:
        return ()
    held = plural(len(score.gpus), "GPU")
    steps = [Step("Allocated", f"{held} for {words.duration(score.wall_s)}", 1.0, 0.0, None)]
    for name, heading, meaning in words.FACTORS:
        factor = getattr(score.factors, name)
        before = steps[-1].left
        steps.append(Step(heading, meaning, before * factor, before * (1 - factor), factor))
    worst = max(steps[1:], key=lambda step: step.lost)
    return tuple(
        Step(step.name, step.meaning, step.left, step.lost, step.factor, largest=step is worst and step.lost > 0)
        for step in steps
    )


def facts(view: Overview) -> list[tuple[str, str]]:
    """Return the short facts under the headline as (name, value)."""
    score, used = view.score, [node for node in view.nodes if node.role in {Role.USED, Role.SPARE_USED}]
    models = sorted({gpu.model for gpu in score.gpus if gpu.model})
    size = f"{plural(len(used), 'node')}, {plural(len(score.gpus), 'GPU')}" if used else plural(len(score.gpus), "GPU")
    return [
        ("Outcome", _outcome(view)),
        ("Ran for", words.duration(score.wall_s)),
        ("Size", size),
        ("GPU", ", ".join(models) or words.NOTHING),
        ("Energy of the GPUs", words.energy(score.energy_j)),
        ("GPU activity observed", words.percent(score.coverage_ratio)),
        *([("OFU", f"{words.percent(score.ofu)} of tensor peak")] if score.ofu is not None else []),
        *([("Time of a step", words.step_time(view.step_time))] if view.step_time else []),
        *words.work_facts(view.work),
        *([("Activity repeats", words.period(score.period))] if score.period else []),
    ]


def held(job: JobRecord) -> str:
    """Return the nodes that were used and when they were held, in one line."""
    used = [each for each in job.allocation if each.used]
    if not used:
        return words.NOTHING
    begins = min((each.from_ns for each in used if each.from_ns is not None), default=None)
    ends = max((each.to_ns for each in used if each.to_ns is not None), default=None)
    names = NodeSet([each.node for each in used])
    return str(names) if begins is None else f"{names}, {_stamp(begins)} to {_stamp(ends)}"


def _outcome(view: Overview) -> str:
    if view.outcome is None:
        return "running" if view.score.running else "not recorded"
    return view.outcome.state.replace("_", " ").lower()


def lowest(gpus: Sequence[GpuScore]) -> list[GpuScore]:
    """Return all GPUs in order, or the lowest ones if there are too many for a page."""
    if len(gpus) <= MOST_GPUS:
        return list(gpus)
    return sorted(gpus, key=lambda gpu: (gpu.score is not None, gpu.score or 0.0))[:MOST_GPUS]


def eventful(nodes: Sequence[NodeStory]) -> list[NodeStory]:
    """Return all nodes in order; of too many those with something to tell, else the first ones."""
    if len(nodes) <= MOST_NODES:
        return list(nodes)
    told = [node for node in nodes if node.role is not Role.USED or what_happened(node)]
    return (told or list(nodes))[:MOST_NODES]


def _gap_rows(view: Overview, window: Window | None) -> list[Mapping[str, Any]]:
    """The data quality per node and family, with its gaps in per cent of the expected time."""
    restarts = dict(view.quality.agent_restarts)
    found: list[Mapping[str, Any]] = []
    shown = view.quality.coverage
    if len(shown) > MOST_NODES:
        shown = tuple(sorted(shown, key=lambda each: each.coverage_ratio)[: MOST_NODES // 2])
    for each in shown:
        length_ns = each.expected.end_ns - each.expected.start_ns
        gaps = [
            (100 * (gap.start_ns - each.expected.start_ns) / length_ns, 100 * (gap.end_ns - gap.start_ns) / length_ns)
            for gap in each.gaps
            if length_ns > 0 and window
        ]
        found.append({"coverage": each, "gaps": gaps, "restarts": restarts.get(each.node, 0)})
    return found


def _stamp(time_ns: int | None) -> str:
    if time_ns is None:
        return words.NOTHING
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _subject(event: Event) -> str:
    return event.node if event.gpu is None else f"{event.node}:{event.gpu}"


@cache
def templates() -> Environment:
    """Return the templates of the pages, with what they show numbers with."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - slow to import

    templates = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "percent": words.percent,
        "duration": words.duration,
        "energy": words.energy,
        "stamp": _stamp,
        "clock": drawing.clock,
        "subject": _subject,
        "what_happened": what_happened,
        "phase_times": words.phase_times,
        "gain": advice.gain,
        "size": size,
        "count": count,
        "latency": words.latency,
        "storage_line": words.storage_line,
        "network_line": words.network_line,
        "energy_facts": words.energy_facts,
    }
    templates.globals |= {"headline": words.headline, "steady": words.steady, "Role": Role}
    return templates
