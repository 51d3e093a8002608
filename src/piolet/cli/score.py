"""`piolet score`: how well a job used its GPUs, in the terminal, as JSON or as a page."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from piolet.cli.common import Format, format_option, print_json, print_table, progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    from piolet.logbook.layout import Logbook
    from piolet.logbook.reader import Reader
    from piolet.score.calibrate import Measured
    from piolet.score.model import JobScore
    from piolet.score.overview import Overview

PLAIN_WIDTH = 140
"""Columns when stdout is not a terminal."""


class JobOrCommand(click.Group):
    """A group whose first word may also be a job: then it is `show` that is meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that `args` call."""
        known = args[0] in self.commands
        return super().resolve_command(ctx, args if known else ["show", *args])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let options stand before the job too."""
        asks_help = not args or args[0] in ctx.help_option_names
        return super().parse_args(ctx, args if asks_help or args[0] in self.commands else ["show", *args])


@click.group(
    cls=JobOrCommand,
    subcommand_metavar="JOB | COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def command() -> None:
    """How well jobs used their GPUs: `piolet score JOB`.

    JOB is a job id, `last`, or the directory of a logbook.
    """


@command.command()
@click.argument("job")
@format_option
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the report, one self-contained page, to this file.",
)
@click.option("--pdf", type=click.Path(path_type=Path, dir_okay=False), help="Also print the report to this file.")
@click.option("--brief", is_flag=True, help="Print the score in a few lines.")
@click.option("--parameters", help="Parameters of the model, such as 7B or 350M, for the MFU.")
@click.option("--weights", default="", help="Another view, such as compute=0.5,memory=0.3,network=0.2.")
def show(
    job: str,
    *,
    output: Format,
    html: Path | None,
    pdf: Path | None,
    parameters: str | None,
    weights: str,
    brief: bool,
) -> None:
    """Score JOB; this is what `piolet score JOB` does.

    The score says at what share of their attainable speed the allocated GPUs ran, which of four factors costs most,
    what holds the job back, and what was not measured.
    """
    from piolet.logbook.reader import read, rereading
    from piolet.score.overview import overview
    from piolet.score.terminal import score_lines
    from piolet.score.weights import parse, weighed
    from piolet.score.work import parse_parameters

    wanted = parse(weights) if weights else {}
    logbook = _find(job)
    size = parse_parameters(parameters) if parameters else None

    @rereading
    def look() -> tuple[Overview, list[Path]]:
        with read(logbook) as reader:
            view = overview(reader, size)
            return view, _written(reader, view, wanted, html, pdf)

    with progress("reading the logbook"):
        view, written = look()
    other = weighed(view.score, wanted)
    if output is Format.JSON:
        weighed_view = {"weighed": {"weights": wanted, "value": other}} if wanted else {}
        print_json(_everything(view) | weighed_view)
    elif brief:
        click.echo("\n".join(score_lines(view.score)))
    else:
        _print(view)
    if wanted and output is not Format.JSON:
        click.echo(_weighed_line(wanted, other))
    for path in written:
        click.echo(f"report: {path}", err=True)


def _everything(view: Overview) -> dict[str, object]:
    """Return what is known of the job, for programs: every number, unrounded."""
    return asdict(view.score) | {
        "nodes": [asdict(node) for node in view.nodes],
        "quality": asdict(view.quality),
        "step_time": view.step_time and asdict(view.step_time),
        "work": asdict(view.work),
        "resources": view.resources and asdict(view.resources),
        "advice": [asdict(each) for each in view.advice],
    }


def _written(
    reader: Reader, view: Overview, weights: Mapping[str, float], html: Path | None, pdf: Path | None
) -> list[Path]:
    """Write the report where it was asked for, and return where that is."""
    from piolet.data.jobs import findings
    from piolet.score.report import render

    return _save(render(reader, view, weights, findings), html, pdf) if html or pdf else []


def _save(page: str, html: Path | None, pdf: Path | None) -> list[Path]:
    from piolet.core.files import write_text
    from piolet.tools.chromium import print_pdf

    with TemporaryDirectory(prefix="piolet-report-") as scratch:
        source = html or Path(scratch) / "report.html"
        write_text(source, page)
        if pdf:
            print_pdf(source, pdf)
    return [path for path in (html, pdf) if path]


def _find(job: str) -> Logbook:
    from piolet.core import config
    from piolet.logbook import layout

    settings = config.load().settings
    return layout.find(job, layout.root(settings), settings.cluster)


def _weighed_line(weights: Mapping[str, float], value: float | None) -> str:
    from piolet.score import words
    from piolet.score.weights import named

    return f"weighed     {words.percent(value)}  by {named(weights)}; this is not the score"


@command.command()
@click.argument("before")
@click.argument("after")
@click.option("--fail-below", type=click.FloatRange(min=0, min_open=True), help="Exit 1 if the ratio is below this.")
@format_option
@click.pass_context
def compare(ctx: click.Context, before: str, after: str, fail_below: float | None, output: Format) -> None:
    """Compare the steady saturation of two jobs.

    The ratio AFTER / BEFORE has a 95 % confidence interval. With --fail-below, exit 1 only if the whole interval is
    below the limit; an interval that holds it is inconclusive.
    """
    from piolet.score.compare import Verdict
    from piolet.score.compare import compare as compared
    from piolet.score.terminal import comparison_lines

    with progress("reading two logbooks"):
        found = compared(_find(before), _find(after))
    verdict = found.ratio.verdict(fail_below) if fail_below else None
    if output is Format.JSON:
        print_json(asdict(found) | {"limit": fail_below, "verdict": verdict})
    else:
        click.echo("\n".join(comparison_lines(found, fail_below)))
    ctx.exit(1 if verdict is Verdict.FAIL else 0)


@command.command()
@click.option("--name", default="", help="Only jobs of this name.")
@click.option("--user", default="", help="Only jobs of this user.")
@format_option
def history(name: str, user: str, output: Format) -> None:
    """Score every job below the logbooks' root, pooled by GPU-hours."""
    from piolet.core import config
    from piolet.logbook import layout
    from piolet.score.history import history as past_jobs
    from piolet.score.terminal import history_rows, history_summary

    settings = config.load().settings
    books = sorted(path.parent for path in layout.root(settings).glob(f"{settings.cluster or '*'}/*/job.json"))
    with progress(f"scoring {len(books)} jobs"):
        found = past_jobs(books, name=name, user=user)
    if output is Format.JSON:
        totals = {"gpu_hours": found.gpu_hours, "score": found.score, "energy_j": found.energy_j}
        print_json(totals | {"jobs": [asdict(past.score) for past in found.jobs], "unreadable": found.unreadable})
        return
    print_table(("job", "name", "user", "GPU hours", "score", "steady", "bottleneck"), history_rows(found))
    click.echo(history_summary(found))


@command.command()
@click.argument("job")
def explain(job: str) -> None:
    """Show how the score of JOB came about, number by number.

    Sums behind each factor, ceilings with their sources, and the rules of the label up to the one that held.
    """
    from piolet.logbook.reader import read, rereading
    from piolet.logbook.records import read_job
    from piolet.score.explain import explanation
    from piolet.score.job import score_job

    logbook = _find(job)

    @rereading
    def look() -> JobScore:
        with read(logbook) as reader:
            return score_job(reader, read_job(logbook.job))

    with progress("reading the logbook"):
        found = look()
    click.echo("\n".join(explanation(found)))


@command.command()
@click.argument("jobs", nargs=-1, required=True)
@click.option("--write", is_flag=True, help="Keep them in your ceilings.toml, so that scores use them from now on.")
def calibrate(jobs: tuple[str, ...], *, write: bool) -> None:
    """Measure ceilings from recordings of a load that drives the GPUs to their limits.

    For each model and counter, the highest level that a GPU held for 20 seconds. NVIDIA's dcgmproftester is such a
    load: `piolet record -- dcgmproftester12 --no-dcgm-validation -t 1004 -d 60`.
    """
    import os
    from contextlib import ExitStack

    from piolet.logbook.reader import read
    from piolet.logbook.records import read_job
    from piolet.score import calibrate as measuring
    from piolet.score.ceilings import measured_files

    books = [_find(job) for job in dict.fromkeys(jobs)]
    with progress(f"reading {len(books)} logbooks"), ExitStack() as opened:
        found = measuring.calibrate([(opened.enter_context(read(book)), read_job(book.job)) for book in books])
    print_table(("GPU", "counter", "ceiling", "held for", "job"), [_ceiling_row(each) for each in found])
    path = measured_files(os.environ)[1]
    if write:
        measuring.save(path, found)
    click.echo(f"{'written to' if write else 'not written; --write would keep them in'} {path}", err=True)


def _ceiling_row(found: Measured) -> tuple[str, ...]:
    value = f"{found.value / 1e9:.1f} GB/s" if found.key.endswith("per_s") else f"{found.value:.3f}"
    return found.model, found.key, value, f"{found.held_s:.0f} s", found.job_id


@command.command()
@click.argument("jobs", nargs=-1, required=True)
@click.option("--title", default="", help="What the runs are for; by default their names.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the pages to this file.")
@click.option("--pdf", type=click.Path(path_type=Path, dir_okay=False), help="Print the pages to this file.")
def proposal(jobs: tuple[str, ...], title: str, html: Path | None, pdf: Path | None) -> None:
    """Write two pages over several runs, to attach to a proposal.

    Everything is weighed by GPU-hours. Give --html, --pdf or both.
    """
    from piolet.score import proposal as pages

    if not html and not pdf:
        raise click.UsageError("say where the pages shall go: --html FILE, --pdf FILE or both")
    with progress(f"reading {len(jobs)} logbooks"):
        text = pages.render(pages.gather([_find(job) for job in dict.fromkeys(jobs)], title))
        written = _save(text, html, pdf)
    for path in written:
        click.echo(str(path))


def _print(view: Overview) -> None:
    from rich.console import Console

    from piolet.score.terminal import render

    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    Console(width=width, highlight=False, markup=False).print(render(view))
