"""`piolet watch lake` and `rollup`: all jobs at once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from piolet.cli.common import Format, format_option, print_json, print_table, progress
from piolet.core.text import plural


@click.command()
@click.argument("query", default="")
@click.option(
    "--clickhouse",
    "files",
    metavar="FUNCTION",
    help="Print it for ClickHouse instead; FUNCTION reads the files, as in file('{path}', Parquet, '{structure}').",
)
@format_option
def lake(query: str, files: str | None, output: Format) -> None:
    """Ask the logbooks of all jobs that you may read: QUERY is a SELECT, or the name of a question.

    Tables are the families, with a column `job`, and the roll-ups gpu_1m, gpu_1h, host_1m and host_1h. Without QUERY,
    list the questions.
    """
    from piolet.watch import lake as asked

    if not query:
        print_table(("question", "what it answers"), [(name, what) for name, (what, _) in asked.CATALOGUE.items()])
        return
    root, cluster = _root()
    text = asked.query_of(query)
    if files is not None:
        click.echo(asked.clickhouse(str(root), cluster or "*", text, files=files))
        return
    with progress("reading the logbooks"):
        answer = asked.ask(root, cluster or "*", text)
    if output is Format.JSON:
        print_json(asdict(answer))
    else:
        print_table(answer.columns, answer.rows)
        if answer.truncated:
            click.echo(f"only the first {len(answer.rows)} rows are shown", err=True)


@click.command()
@click.option("--days", type=click.IntRange(1, 3660), default=31, show_default=True, help="How far back to look.")
def rollup(days: int) -> None:
    """Write the roll-ups of the days that have none, from the logbooks that you may read: for operators, once a day.

    They hold every job, so they stay readable to you alone.
    """
    from datetime import UTC, datetime

    from piolet.watch import Archive, rollups
    from piolet.watch.access import this_process

    root, cluster = _root()
    jobs = Archive(root).seen_by(this_process())
    for name in [cluster] if cluster else sorted(path.name for path in root.glob("*") if path.is_dir()):
        for day in rollups.missing_days(root, name, days, datetime.now(UTC).date()):
            click.echo(f"{name} {day}: {plural(rollups.write(root, name, day, jobs), 'job')}")


def _root() -> tuple[Path, str]:
    from piolet.core import config
    from piolet.logbook import layout

    settings = config.load().settings
    return layout.root(settings), settings.cluster


COMMANDS = (lake, rollup)
