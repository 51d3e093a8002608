"""Proposal mode: what a principal investigator attaches, two pages over several runs.

Everything is pooled by GPU-hours. A number that was not measured is a dash; runs without a score are counted and named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from piolet import __version__
from piolet.core.errors import UsageError
from piolet.core.text import count, plural
from piolet.logbook.layout import Logbook
from piolet.score import words
from piolet.score.history import History, Past
from piolet.score.overview import Overview, open_overview
from piolet.score.report import Step, page_style, templates, waterfall

MOST_RUNS = 10
"""Rows of the table of runs that two pages have room for; of more, those with the most GPU-hours."""

MOST_SIZES = 6
MOST_NOTES = 4

_SCALES_FROM = 2
"""Sizes of job that are needed to say how a program scales."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run; `efficiency` is its tokens per second and GPU, of those of the smallest run. None is not known."""

    view: Overview
    past: Past
    efficiency: float | None = None

    @property
    def gpus(self) -> int:
        """GPUs that it held."""
        return len(self.view.score.gpus)

    @property
    def per_gpu(self) -> float | None:
        """Tokens per second and GPU."""
        rate = self.view.work.tokens_per_s
        return rate / self.gpus if rate and self.gpus else None


@dataclass(frozen=True, slots=True)
class Proposal:
    """Runs, smallest first, and what they are together."""

    title: str
    runs: tuple[Run, ...]
    history: History

    @property
    def simulated(self) -> list[str]:
        """What was simulated in any of the runs."""
        return sorted({each for run in self.runs for each in run.view.job.simulated})


def gather(logbooks: Sequence[Logbook], title: str = "") -> Proposal:
    """Read the runs of a proposal.

    Raises:
        UsageError: none of them has a score.
        ParseError: a job.json cannot be read.
    """
    views = [open_overview(logbook) for logbook in logbooks]
    if all(view.score.score is None for view in views):
        raise UsageError(
            "none of these jobs has a saturation score",
            where=", ".join(view.job.job_id for view in views),
            remedy="look at one with `piolet score`; it says what was not measured",
        )
    runs = sorted(
        (Run(view, Past(view.job, view.score)) for view in views), key=lambda run: (run.gpus, run.view.job.job_id)
    )
    names = sorted({view.job.name for view in views if view.job.name})
    history = History(tuple(run.past for run in runs), ())
    return Proposal(title or ", ".join(names) or "GPU use", tuple(_with_efficiency(runs)), history)


def _with_efficiency(runs: Sequence[Run]) -> Iterator[Run]:
    """Compare runs of one program with the smallest of them; without two sizes there is nothing to compare."""
    known = [run for run in runs if run.per_gpu]
    if len({run.gpus for run in known}) < _SCALES_FROM:
        yield from runs
        return
    base = known[0].per_gpu or 1.0
    yield from (Run(run.view, run.past, run.per_gpu / base if run.per_gpu else None) for run in runs)


def pooled(proposal: Proposal) -> tuple[Step, ...]:
    """Return the waterfall of all runs together: each run's shares, weighed by its GPU-hours."""
    each = [(waterfall(run.view.score), run.past.gpu_hours) for run in proposal.runs if run.view.score.factors]
    hours = sum(weight for _, weight in each)
    if not hours:
        return ()
    lefts = [sum(steps[at].left * weight for steps, weight in each) / hours for at in range(len(each[0][0]))]
    held = f"{plural(len(each), 'run')}, {hours:.1f} GPU-hours"
    steps = [Step("Allocated", held, 1.0, 0.0, None)]
    for (_, heading, meaning), before, left in zip(words.FACTORS, lefts, lefts[1:], strict=False):
        steps.append(Step(heading, meaning, left, before - left, left / before if before else 0.0))
    worst = max(steps, key=lambda step: step.lost)
    return tuple(
        Step(step.name, step.meaning, step.left, step.lost, step.factor, largest=step is worst) for step in steps
    )


def facts(proposal: Proposal) -> list[tuple[str, str]]:
    """Return the short facts under the headline as (name, value)."""
    history, scores = proposal.history, [run.view.score for run in proposal.runs]
    models = sorted({gpu.model for score in scores for gpu in score.gpus if gpu.model})
    sizes = sorted({run.gpus for run in proposal.runs})
    spread = f"{sizes[0]} to {sizes[-1]} GPUs" if len(sizes) > 1 else plural(sizes[0], "GPU")
    coverage = [score.coverage_ratio for score in scores if score.coverage_ratio is not None]
    return [
        ("Runs", f"{len(scores)}, {spread}"),
        ("GPU-hours", f"{history.gpu_hours:.1f}, {history.scored_gpu_hours:.1f} of them measured"),
        ("GPU", ", ".join(models) or words.NOTHING),
        ("Energy of the GPUs", _energy(history)),
        ("Best run", words.percent(max(score.score for score in scores if score.score is not None))),
        ("GPU activity observed", words.percent(min(coverage, default=None)) + " or more"),
    ]


def _energy(history: History) -> str:
    measured = sum(past.score.energy_j is not None for past in history.jobs)
    part = "" if measured in {0, len(history.jobs)} else f", {measured} of {len(history.jobs)} runs measured it"
    return words.energy(history.energy_j) + part


def row(run: Run) -> list[str]:
    """Return the cells of a run in the table, after its name and size."""
    score, work = run.view.score, run.view.work
    return [
        f"{run.past.gpu_hours:.1f}",
        words.percent(score.score),
        words.percent(score.steady),
        words.percent(work.mfu) if work.mfu is not None else f"{words.percent(score.ofu)} OFU",
        words.NOTHING if work.tokens_per_s is None else count(work.tokens_per_s),
        words.percent(run.efficiency),
        words.NOTHING if work.energy_per_token_j is None else words.energy_per_token(work.energy_per_token_j),
        str(score.label.bottleneck),
    ]


def shown(proposal: Proposal) -> tuple[Run, ...]:
    """Return the runs that the table has room for, smallest first."""
    largest = sorted(proposal.runs, key=lambda run: -run.past.gpu_hours)[:MOST_RUNS]
    return tuple(run for run in proposal.runs if run in largest)


def best_by_size(proposal: Proposal) -> list[Run]:
    """Return the most efficient run of each size, smallest first; empty if scaling is not known."""
    known = sorted((run for run in proposal.runs if run.efficiency is not None), key=lambda run: run.efficiency or 0.0)
    best = {run.gpus: run for run in known}
    return [best[size] for size in sorted(best)][-MOST_SIZES:]


def render(proposal: Proposal) -> str:
    """Return the two pages as one self-contained HTML text."""
    return (
        templates()
        .get_template("proposal.html.jinja")
        .render(
            proposal=proposal,
            score=proposal.history.score,
            facts=facts(proposal),
            steps=pooled(proposal),
            runs=[(run, row(run)) for run in shown(proposal)],
            scaling=best_by_size(proposal),
            unscored=[run.view.job.job_id for run in proposal.runs if run.view.score.score is None],
            ceilings=sorted({name for run in proposal.runs for name in run.view.score.ceilings}),
            notes=sorted({note for run in proposal.runs for note in run.view.score.notes})[:MOST_NOTES],
            versions=sorted({item for run in proposal.runs for item in run.view.job.versions.items()}),
            clusters=sorted({run.view.job.cluster for run in proposal.runs}),
            style=page_style("report.css", "proposal.css"),
            version=__version__,
            written=datetime.now(UTC).strftime("%Y-%m-%d"),
        )
    )
