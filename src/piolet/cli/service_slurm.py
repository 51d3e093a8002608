"""`piolet service attend`, `logs`, and what other commands of `piolet service` do for services on Slurm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from piolet.cli.service_site import site_platform
from piolet.core import config
from piolet.core.text import plural

if TYPE_CHECKING:
    from piolet.service.platform import Platform
    from piolet.service.reading import ServiceFile


@click.command(hidden=True)
@click.argument("place", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--generation", type=int, required=True)
@click.option("--replica", type=int, required=True)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def attend(place: Path, *, generation: int, replica: int, command: tuple[str, ...]) -> int:
    """Attend the job of a service: the batch scripts that `deploy` writes call this."""
    from piolet.service.slurm import attending, places

    return attending.attend(places.Place(place), generation, replica, command, config.load().settings)


@click.command()
@click.argument("service", metavar="PROJECT/SERVICE")
@click.option("-n", "--lines", type=click.IntRange(1), default=50, show_default=True, help="Of the end of each log.")
def logs(service: str, *, lines: int) -> None:
    """Print the end of the newest log of each replica: of jobs of Slurm, else of pods, through kubectl."""
    from piolet.core.run import SystemRunner
    from piolet.service import publishing
    from piolet.service.slurm import places
    from piolet.tools import kubectl

    project, name = publishing.named(service)
    place = places.of(config.load().settings, project, name)
    if place.read_wanted() is None:
        namespace = site_platform().namespace(project)
        click.echo(kubectl.logs(SystemRunner(), namespace, name, lines), nl=False)
        return
    for attempt in {each.replica: each for each in place.attempts()}.values():
        click.echo(f"==> {attempt.log} (replica {attempt.replica}, job {attempt.job} on {attempt.node}) <==")
        click.echo(places.tail(Path(attempt.log), lines), nl=False)


COMMANDS = (attend, logs)


def is_for(file: ServiceFile) -> bool:
    """Tell whether the service runs as jobs of Slurm."""
    from piolet.service.model import RunOn

    return file.service.run_on is RunOn.SLURM


def deploy(file: ServiceFile, *, dry_run: bool) -> None:
    """Submit the jobs of the service, or print their batch scripts."""
    from piolet.launch import serving

    settings, service = config.load().settings, file.service
    if dry_run:
        click.echo("\n".join(serving.scripts(file, settings, 0, write=False)), nl=False)
        return
    for replica, job in enumerate(serving.deploy(file, settings)):
        click.echo(f"{service.project}/{service.name}: replica {replica} is job {job}")
    click.echo(f"look at it: piolet service status {service.project}", err=True)


def renew(file: ServiceFile, *, dry_run: bool) -> None:
    """Let the jobs of the service go on until the new date, or say so."""
    from piolet.launch import serving

    if dry_run:
        click.echo(f"{file.service.project}/{file.service.name} would run until {file.service.expires}")
    else:
        serving.renew(file, config.load().settings)


def remove(project: str, service: str, *, now: bool, dry_run: bool) -> bool:
    """End the jobs of a service; return whether it runs as jobs at all."""
    from piolet.launch import serving
    from piolet.service.slurm import places

    settings = config.load().settings
    if places.of(settings, project, service).read_wanted() is None:
        return False
    if dry_run:
        click.echo(f"the jobs of {project}/{service} would end")
        return True
    waiting, running = serving.end(project, service, settings, now=now)
    how = "cancelled" if now else "ending, once requests under way have"
    click.echo(
        f"{project}/{service}: {plural(waiting, 'waiting job')} cancelled, {plural(running, 'running job')} {how}"
    )
    return True


def platform_of(file: ServiceFile) -> Platform:
    """Return the site's platform; a service on Slurm needs none, and then only what holds everywhere is asked."""
    from piolet.service import platform

    settings = config.load().settings
    if is_for(file) and not settings.service.platform.exists():
        return platform.without_kubernetes(file.service.project)
    return platform.of_site(settings)
