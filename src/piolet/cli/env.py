"""`piolet env`: container environments from EDF files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from piolet.cli.common import Format, format_option, print_json, print_table
from piolet.core import config
from piolet.core.errors import PioletError
from piolet.core.files import write_text
from piolet.core.native import native
from piolet.env import ContainerPlan, compile_environment, lock, plan_directory, write_plan


@click.group()
def command() -> None:
    """Container environments from EDF files.

    NAME is the name of an environment in the search path, or a path with a `/` in it.
    """


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def check(names: tuple[str, ...]) -> int:
    """Check environments: exit status 0 if all are right, 2 if one is not."""
    status = 0
    for name in names:
        try:
            _compiled(name)
        except PioletError as error:
            click.echo(f"{name}: {error}", err=True)
            status = max(status, error.exit_status)
        else:
            click.echo(f"{name}: right")
    return status


@command.command()
@click.argument("name")
@format_option
def render(name: str, output: Format) -> None:
    """Print every value of an environment and where it comes from."""
    plan = _compiled(name)
    if output is Format.JSON:
        print_json(lock(plan, environ=os.environ))
    else:
        print_table(("key", "value", "origin"), plan.rows())


@command.command(name="compile")
@click.argument("name")
@click.option("--output", type=click.Path(path_type=Path), help="File to write instead of the shared directory.")
def compile_command(name: str, output: Path | None) -> None:
    """Compile an environment into a container plan, and print the path of the plan."""
    plan = _compiled(name)
    if output is None:
        output = write_plan(plan, plan_directory(_settings(), os.environ))
    else:
        write_text(output, plan.text(), mode=0o600)
    click.echo(output.resolve())


@command.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def run(name: str, program: Sequence[str]) -> None:
    """Run a program in an environment on this machine: `piolet env run NAME -- PROGRAM...`.

    Exits as the program does.
    """
    if program[0] == "--":  # click keeps it, since options end at NAME
        program = program[1:]
    if not program:
        raise click.UsageError("Missing argument 'PROGRAM...'.")
    enter = str(native("piolet-enter"))
    plan = write_plan(_compiled(name), plan_directory(_settings(), os.environ))
    os.execv(enter, [enter, str(plan), "--", *program])  # noqa: S606 - becomes the program, so no Runner


def _compiled(name: str) -> ContainerPlan:
    return compile_environment(name, environ=os.environ, cwd=Path.cwd(), settings=_settings())


def _settings() -> config.Settings:
    return config.load().settings
