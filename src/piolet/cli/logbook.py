"""`piolet logbook`: list, verify, merge, export, import and remove logbooks."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from piolet.cli.common import Format, format_option, print_json, print_table

if TYPE_CHECKING:
    from piolet.core.settings import Settings
    from piolet.logbook.keeping import Book
    from piolet.logbook.layout import Logbook

_MB = 1_000_000


@click.group()
def command() -> None:
    """Look after the logbooks of jobs. JOB is a job id, `last`, or the directory of a logbook."""


@command.command()
@format_option
def ls(output: Format) -> None:
    """List the logbooks below the root, oldest first."""
    from piolet.logbook import keeping, layout

    settings = _settings()
    found = keeping.books(layout.root(settings), settings.cluster)
    if output is Format.JSON:
        print_json([{**asdict(book), "logbook": str(book.logbook.path)} for book in found])
        return
    print_table(("job", "cluster", "name", "user", "started", "nodes", "MB", "files"), [_row(book) for book in found])


def _row(book: Book) -> tuple[object, ...]:
    size = (f"{book.size_bytes / _MB:.1f}", book.segments)
    path = book.logbook.path
    if book.job is None:
        return (path.name, path.parent.name, "job.json is unreadable", "", "", "", *size)
    job, started_ns = book.job, book.job.started_ns
    started = datetime.fromtimestamp(started_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M") if started_ns else ""
    return (job.job_id, job.cluster, job.name, job.user, started, len(job.allocation), *size)


@command.command()
@click.argument("job")
@format_option
@click.pass_context
def verify(ctx: click.Context, job: str, output: Format) -> None:
    """Read everything in the logbook of JOB; exit 1 if something cannot be read."""
    from piolet.logbook import keeping

    found = keeping.verify(_find(job))
    if output is Format.JSON:
        print_json([asdict(each) for each in found])
    elif found:
        print_table(("file", "reason"), [(each.path, each.reason) for each in found])
    else:
        click.echo("every file can be read")
    ctx.exit(1 if found else 0)


@command.command()
@click.argument("job")
def compact(job: str) -> None:
    """Merge the segments of JOB, each node's into one per family."""
    from piolet.logbook import keeping

    written = keeping.compact(_find(job))
    click.echo("\n".join(map(str, written)) or "there is nothing to merge")


@command.command()
@click.argument("job")
@click.option("--dry-run", is_flag=True, help="Show what would be rewritten.")
def upgrade(job: str, *, dry_run: bool) -> None:
    """Bring the logbook of JOB, written by an older version, to the schema of this one, in place."""
    from piolet.logbook import upgrading

    found = upgrading.upgrade(_find(job), dry_run=dry_run)
    for path in found:
        click.echo(f"{'would rewrite' if dry_run else 'rewrote'} {path}")
    if not found:
        click.echo("it is as this version writes it")


@command.command()
@click.argument("job")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--as", "form", type=click.Choice(["parquet", "csv", "arrow"]), default="parquet", show_default=True)
def export(job: str, directory: Path, form: str) -> None:
    """Write each family of JOB as one file into DIRECTORY; arrow is an Arrow IPC file, as Feather readers take it."""
    from piolet.logbook import keeping

    for path in keeping.export(_find(job), directory, keeping.ExportFormat(form)):
        click.echo(path)


@command.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--as", "form", default="", help="The tool that wrote the files.  [default: told by their content]")
@click.option("--job", default="", help="Id of the job.  [default: the files' own, else the first one's name]")
@click.option("--cluster", default="", help='Cluster of the job.  [default: the files\' own, else "imported"]')
@click.option("--node", default="", help="Node of files that do not name it.  [default: the name of the file]")
@click.option("--gpu-model", default="", help='Model of the GPUs, such as "NVIDIA GH200 120GB"; the score needs it.')
@click.option("--interval", type=click.FloatRange(min=0, min_open=True), help="Seconds between samples without times.")
@click.option("--started", type=click.DateTime(), help="Start of samples without times, UTC.  [default: by the file's]")
def bring_in(  # noqa: PLR0917 - one argument an option
    paths: tuple[Path, ...],
    form: str,
    job: str,
    cluster: str,
    node: str,
    gpu_model: str,
    interval: float | None,
    started: datetime | None,
) -> None:
    """Make a logbook of recordings of GSSR, dcgmi dmon, dcgm-exporter, Omnistat, jobstats or ClusterCockpit.

    PATHS are files of one job, or directories of them. What those tools did not measure stays unknown.
    """
    from piolet.logbook import importing, layout

    started_ns = round(started.replace(tzinfo=UTC).timestamp() * 1e9) if started else None
    given = importing.Given(job, cluster, node, gpu_model, interval, started_ns)
    done = importing.bring(paths, layout.root(_settings()), given, form)
    click.echo(done.logbook.path)
    click.echo(f"{done.rows} rows from {', '.join(done.tools)}", err=True)
    if done.left_out:
        click.echo(f"left out, having no column: {', '.join(done.left_out)}", err=True)


@command.command()
@click.argument("jobs", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Show what would be removed.")
def rm(jobs: tuple[str, ...], *, dry_run: bool) -> None:
    """Remove the logbooks of JOBS with everything in them."""
    from piolet.logbook import keeping

    found = [_find(job) for job in jobs]
    keeping.remove(found, dry_run=dry_run)
    for logbook in found:
        click.echo(f"{'would remove' if dry_run else 'removed'} {logbook.path}")


def _settings() -> Settings:
    from piolet.core import config

    return config.load().settings


def _find(job: str) -> Logbook:
    from piolet.logbook import layout

    settings = _settings()
    return layout.find(job, layout.root(settings), settings.cluster)
