"""`piolet service`: support and inference services of a project, from one file."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import click

from piolet.cli import service_accounting, service_gateway, service_local, service_publishing, service_slurm
from piolet.cli.common import Format, OneOf, format_option, print_json, progress
from piolet.cli.service_site import file_argument, site_platform, today
from piolet.core.files import write_text
from piolet.core.text import plural
from piolet.service.starting import Template

DAYS = 90
"""Days that a new service may run when nothing else is said."""


@click.group()
def command() -> None:
    """Services of a project, each from one file: on the site's Kubernetes, or as jobs of Slurm.

    PATH is a service.toml or its directory. The setting service.platform names the file with
    what the site has and allows.
    """


@command.command()
@click.argument("template", type=OneOf(Template))
@click.argument("path", type=click.Path(path_type=Path), default=Path("service.toml"))
@click.option("--project", required=True, help="The project that the service belongs to.")
@click.option("--image", required=True, help="Its image: NAME@sha256:..., or NAME:TAG and then `pin`.")
@click.option("--name", help="Its name. [default: the template's]")
@click.option("--days", type=click.IntRange(1), default=DAYS, show_default=True, help="How long it may run.")
def new(template: Template, path: Path, *, project: str, image: str, name: str | None, days: int) -> None:
    """Write a new, commented service.toml from TEMPLATE; no file is ever replaced."""
    from piolet.service import starting

    expires = today() + timedelta(days=days)
    written = starting.new(template, path, name=name or template.value, project=project, image=image, expires=expires)
    click.echo(written)
    click.echo(f"look at it, then: piolet service check {written}", err=True)


@command.command()
@file_argument
@click.option("--image", default="", help="Another image, as NAME:TAG. [default: the file's]")
def pin(path: Path, image: str) -> None:
    """Ask the registry what the image's tag means now, and write its digest into the file."""
    from piolet import service
    from piolet.core.run import SystemRunner
    from piolet.service import rewriting

    file = service.read(path)
    name = rewriting.named(file, image)
    with progress(f"asking {name.registry}"):
        digest = rewriting.digest(name, os.environ, SystemRunner())
    pinned = rewriting.pinned(file, name, digest)
    write_text(file.document.path, pinned.source)
    click.echo(f"{name} is {digest}")


@command.command()
@file_argument
@format_option
def check(path: Path, output: Format) -> int:
    """Print every policy that the service breaks: where, why, and how to mend it. Exits with 1 if it breaks one."""
    from piolet import service

    file = service.read(path)
    breaches = service.check(file, service_slurm.platform_of(file), today())
    if output is Format.JSON:
        print_json([asdict(breach) for breach in breaches])
    elif breaches:
        click.echo("\n".join(map(str, breaches)))
        click.echo(f"\n{file.service.name} breaks {plural(len(breaches), 'rule')}", err=True)
    else:
        click.echo(f"{file.service.name}: right")
    return int(bool(breaches))


@command.command()
@file_argument
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), help="Write one file a kind into this directory."
)
def render(path: Path, output: Path | None) -> None:
    """Print the Kubernetes objects of the service, or the batch scripts of its jobs.

    What breaks policies is rendered too: `check` says so.
    """
    from piolet import service

    file = service.read(path)
    if service_slurm.is_for(file):
        service_slurm.deploy(file, dry_run=True)
        return
    manifests = service.rendered(file.service, site_platform(), file.contents)
    if output is None:
        click.echo(manifests.text(), nl=False)
        return
    for name, text in manifests.files().items():
        write_text(output / name, text)
        click.echo(output / name)


@command.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@format_option
def verify(directory: Path, output: Format) -> int:
    """Ask the same policies of every manifest below DIRECTORY/PROJECT/, whoever wrote it: a job for a repository's CI.

    Exits with 1 if one breaks a policy.
    """
    from piolet.service.verifying import verified

    count, breaches = verified(directory, site_platform(), today())
    if output is Format.JSON:
        print_json([asdict(breach) for breach in breaches])
    else:
        click.echo("\n".join([*map(str, breaches), f"{plural(count, 'object')}, {len(breaches)} refused"]))
    return int(bool(breaches))


@command.group()
def platform() -> None:
    """What operators own of the service plane."""


@platform.command("render")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), help="Write the tree into this directory.")
def platform_render(output: Path | None) -> None:
    """Print what operators apply, once: namespaces, quotas, Argo CD, admission policies, and values for RKE2.

    All of it comes from the platform.toml that services are checked against.
    """
    from piolet.service.cluster import tree

    for name, text in tree.rendered(site_platform()).items():
        if output is None:
            click.echo(f"# {name}\n{text}", nl=False)
        else:
            write_text(output / name, text)
            click.echo(output / name)


OTHERS = (
    *service_publishing.COMMANDS,
    *service_slurm.COMMANDS,
    *service_gateway.COMMANDS,
    service_local.run,
    service_accounting.account,
)
for other in OTHERS:
    command.add_command(other)
