"""`piolet score`: how well a job used its GPUs, in the terminal, as JSON or as a page."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from piolet.cli.common import Format, format_option, print_json, progress

if TYPE_CHECKING:
    from piolet.score.overview import Overview

PLAIN_WIDTH = 140
"""Columns when stdout is not a terminal."""


@click.command()
@click.argument("job")
@format_option
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the report, one self-contained page, to this file.",
)
@click.option("--brief", is_flag=True, help="Print the score in a few lines.")
def command(job: str, output: Format, html: Path | None, *, brief: bool) -> None:
    """Score JOB, a job id or the directory of a logbook.

    The score says at what share of their attainable speed the allocated GPUs ran, which of four factors costs most,
    what holds the job back, and what was not measured.
    """
    from piolet.core import config  # noqa: PLC0415 - help needs none of this
    from piolet.logbook import layout  # noqa: PLC0415 - same
    from piolet.score.overview import open_overview  # noqa: PLC0415 - same
    from piolet.score.report import write_report  # noqa: PLC0415 - same
    from piolet.score.terminal import score_lines  # noqa: PLC0415 - same

    settings = config.load().settings
    logbook = layout.find(job, layout.root(settings), settings.cluster)
    with progress("reading the logbook"):
        view = open_overview(logbook)
        written = write_report(logbook, html) if html else None
    if output is Format.JSON:
        print_json(
            asdict(view.score) | {"nodes": [asdict(node) for node in view.nodes], "quality": asdict(view.quality)}
        )
    elif brief:
        click.echo("\n".join(score_lines(view.score)))
    else:
        _print(view)
    if written:
        click.echo(f"report: {written}", err=True)


def _print(view: Overview) -> None:
    from rich.console import Console  # noqa: PLC0415 - slow to import, used when something is printed

    from piolet.score.terminal import render  # noqa: PLC0415 - same

    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    Console(width=width, highlight=False, markup=False).print(render(view))
