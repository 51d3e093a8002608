"""`piolet env`: container environments from EDF files."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from piolet.cli import env_hooks, env_images
from piolet.cli.common import Format, OneOf, format_option, print_json, print_table
from piolet.core import config
from piolet.core.errors import PioletError
from piolet.core.files import write_text
from piolet.core.native import native
from piolet.core.settings import Settings
from piolet.env import ContainerPlan, compile_environment, lock, plan_directory, podman, recall, starting, write_plan
from piolet.env.comparing import differences
from piolet.env.compiling import compile_found
from piolet.env.edf import ARCHITECTURES
from piolet.env.listing import listed
from piolet.env.lookup import Context, find
from piolet.env.starting import Template

arch_option = click.option(
    "--arch",
    type=click.Choice(ARCHITECTURES),
    help="Architecture of the nodes; default: the setting env.arch, else that of this machine.",
)


@click.group()
def command() -> None:
    """Container environments from EDF files.

    NAME is the name of an environment in the search path, or a path with a `/` in it.
    """


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@arch_option
def check(names: tuple[str, ...], arch: str | None) -> int:
    """Check environments: exit status 0 if all are right, 2 if one is not."""
    status = 0
    for name in names:
        try:
            _compiled(name, arch, fetch=False)
        except PioletError as error:
            click.echo(f"{name}: {error}", err=True)
            status = max(status, error.exit_status)
        else:
            click.echo(f"{name}: right")
    return status


@command.command()
@click.argument("name")
@arch_option
@format_option
@click.option("--as", "form", type=click.Choice(("podman",)), help="Print a command line instead.")
def render(name: str, arch: str | None, output: Format, form: str | None) -> None:
    """Print every value of an environment and where it comes from.

    `--as podman` prints the command line that starts it under Podman; the words of the program follow its last. An
    image of a registry is imported for that.
    """
    if form:
        plan, path = _planned(name, _settings(arch, form))
        click.echo(podman.command_lines(plan, path, os.environ, Path.cwd()))
        return
    plan = _compiled(name, arch, fetch=False)
    if output is Format.JSON:
        print_json(lock(plan, environ=os.environ))
    else:
        print_table(("key", "value", "origin"), plan.rows())


@command.command(name="list")
@format_option
def list_command(output: Format) -> None:
    """List every environment of the search path, broken ones too.

    A hidden one is right, but another of its name comes first. `piolet env check NAME` says all that is wrong.
    """
    found = listed(_context())
    if output is Format.JSON:
        keys = ("name", "path", "state", "image", "error")
        print_json([{key: str(getattr(entry, key)) for key in keys} for entry in found])
    else:
        rows = [(entry.name, entry.state, entry.summary, entry.path) for entry in found]
        print_table(("name", "state", "image or problem", "file"), rows)


@command.command()
@click.argument("a")
@click.argument("b")
@format_option
def diff(a: str, b: str, output: Format) -> int:
    """Print what differs between environments A and B once resolved, with where each value comes from.

    Exits with 1 if something differs.
    """
    found = differences(_compiled(a, fetch=False), _compiled(b, fetch=False))
    if output is Format.JSON:
        print_json([asdict(difference) for difference in found])
    elif found:
        sides = [(entry.key, side) for entry in found for side in (entry.a, entry.b)]
        names = [name for _ in found for name in (a, b)]
        rows = [
            (key, name, side.value if side else "(none)", side.origin if side else "")
            for (key, side), name in zip(sides, names, strict=True)
        ]
        print_table(("key", "environment", "value", "origin"), rows)
    return int(bool(found))


@command.command()
@click.argument("name")
@click.option("--template", type=OneOf(Template), help="What the environment is for.")
@click.option("--image", help="Path of the image.")
def new(name: str, template: Template | None, image: str | None) -> None:
    """Write a new, commented EDF from a template, and print its path; no file is ever replaced.

    NAME goes to the first directory of the search path, a path with a `/` where it says. On a terminal, what is not
    given is asked for.
    """
    starting.place(name, _context())  # a bad name is said before anything is asked
    template = template or Template(_asked("--template", "What is it for", type=OneOf(Template)))
    image = image or _asked("--image", "Path of the image, a squashfs file or a directory")
    path = starting.new(name, template, image, _context())
    click.echo(path)
    click.echo(f"look at it, then: piolet env check {name}", err=True)


@command.command(name="lock")
@click.argument("name")
@click.option("--update", is_flag=True, help="Ask anew, replace the lock that is there, and show what changed.")
def lock_command(name: str, *, update: bool) -> None:
    """Pin the image of an environment to what its tag means now, in NAME.lock.json beside the EDF.

    Whoever uses the environment then gets that image, even if the tag moves; images are pinned for all architectures.
    Prints pins that are new with +, those that went with -.
    """
    from piolet.env.pinning import lock_images

    for change in lock_images(name, _context(), update=update):
        signs = " " if change.before == change.after else "-+"
        for sign, pin in zip(signs, (change.before, change.after), strict=False):
            if pin:
                click.echo(f"{sign} {change.architecture} {pin.image} {pin.digest}")


for more in (*env_images.COMMANDS, *env_hooks.COMMANDS):
    command.add_command(more)


def _asked(option: str, question: str, **options: Any) -> str:  # noqa: ANN401 - click's own
    if not sys.stdin.isatty():
        raise click.UsageError(f"Missing option '{option}' (asked for on a terminal only).")
    answer: str = click.prompt(question, err=True, **options)
    return answer


@command.command(name="compile")
@click.argument("name")
@click.option("--output", type=click.Path(path_type=Path), help="File to write instead of the shared directory.")
@arch_option
def compile_command(name: str, output: Path | None, arch: str | None) -> None:
    """Compile an environment into a container plan, and print the path of the plan."""
    settings = _settings(arch)
    context = Context(recall.Seen(os.environ), Path.cwd(), settings)
    context.used.extend((config.site_file(os.environ), config.user_file(os.environ)))
    plan = compile_found(find(name, context), context)
    if output is None:
        output = write_plan(plan, plan_directory(settings, os.environ))
        if arch is None:
            recall.remember(name, context, plan, output)
    else:
        write_text(output, plan.text(), mode=0o600)
    click.echo(output.resolve())


@command.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--runtime", type=click.Choice(("piolet", "podman")), help="Default: the setting env.runtime.")
@click.argument("name")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def run(name: str, program: Sequence[str], runtime: str | None) -> int | None:
    """Run a program in an environment on this machine: `piolet env run NAME -- PROGRAM...`.

    Exits as the program does.
    """
    if program[0] == "--":  # click keeps it, since options end at NAME
        program = program[1:]
    if not program:
        raise click.UsageError("Missing argument 'PROGRAM...'.")
    settings = _settings(runtime=runtime)
    plan, path = _planned(name, settings)
    if settings.env.runtime == "podman":
        return podman.run(plan, path, program, os.environ, Path.cwd())
    enter = str(native("piolet-enter"))
    return os.execv(enter, [enter, str(path), "--", *program])  # noqa: S606 - becomes the program, so no Runner


def _compiled(name: str, arch: str | None = None, *, fetch: bool = True) -> ContainerPlan:
    return compile_environment(name, environ=os.environ, cwd=Path.cwd(), settings=_settings(arch), fetch=fetch)


def _planned(name: str, settings: Settings) -> tuple[ContainerPlan, Path]:
    """Compile an environment and write its plan where nodes see it."""
    plan = compile_environment(name, environ=os.environ, cwd=Path.cwd(), settings=settings)
    return plan, write_plan(plan, plan_directory(settings, os.environ))


def _context() -> Context:
    return Context(os.environ, Path.cwd(), _settings())


def _settings(arch: str | None = None, runtime: str | None = None) -> Settings:
    return config.load({"env.arch": arch, "env.runtime": runtime}).settings
