"""`piolet service account`: one statement a project and month."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import click

from piolet.cli.common import OneOf, print_json, print_table, progress
from piolet.cli.service_site import gitops_of, site_platform
from piolet.core.files import write_text

if TYPE_CHECKING:
    from piolet.service.accounting import Line, Statement


class Form(StrEnum):
    """How statements are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@click.command()
@click.argument("month", default="")
@click.option("--repository", help="The repository's address. [default: the platform's]")
@click.option(
    "--gateway", type=click.Path(path_type=Path, dir_okay=False), help="A gateway.toml, for requests and tokens."
)
@click.option("--prometheus", default="", help="Address of a Prometheus, for what was really used.")
@click.option("--page", type=click.Path(path_type=Path, dir_okay=False), help="Write a page as well.")
@click.option("--format", "form", type=OneOf(Form), default=Form.TABLE.value, show_default=True)
def account(
    month: str, *, repository: str | None, gateway: Path | None, prometheus: str, page: Path | None, form: Form
) -> int:
    """Print what each project took in MONTH (2027-01; the present one by default), and what it should know.

    Hours on Kubernetes are what was reserved, from the repository's history; those on Slurm come from the accounts that
    the platform names. Exits with 1 if a project is over its budget or a lease ends soon.
    """
    from piolet.core.run import SystemRunner
    from piolet.service import accounting, statements

    platform = site_platform()
    sources = statements.Sources(gitops_of(platform, repository), gateway, prometheus)
    with progress("reading the history"):
        found = statements.statements(platform, sources, month, datetime.now(UTC), SystemRunner())
    if page:
        write_text(page, accounting.as_page(found))
    if form is Form.JSON:
        print_json([asdict(each) for each in found])
    elif form is Form.CSV:
        click.echo(accounting.as_csv(found), nl=False)
    else:
        _print(found)
    return int(any(each.warnings for each in found))


def _print(found: list[Statement]) -> None:
    columns = ("project", "service", "on", "GPU-h", "CPU-h", "used", "node-h", "GiB-months", "requests", "tokens")
    print_table(columns, [_row(line) for each in found for line in each.lines])
    for each in found:
        for warning in each.warnings:
            click.echo(f"{each.project}: {warning}", err=True)


def _row(line: Line) -> tuple[object, ...]:
    used = "" if line.cpu_hours_used is None else f"{line.cpu_hours_used:.1f}"
    return (
        line.project,
        line.service,
        line.runs_on,
        _between(line.gpu_hours, line.gpu_hours_most),
        _between(line.cpu_hours, line.cpu_hours_most),
        used,
        f"{line.node_hours:.1f}",
        f"{line.gib_months:.1f}",
        line.requests,
        line.tokens,
    )


def _between(least: float, most: float) -> str:
    return f"{least:.1f}" if least == most else f"{least:.1f} to {most:.1f}"
