"""`piolet service diff`, `deploy`, `renew`, `rm`, `status`, `cost`: services in the repository that Argo CD reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from piolet.cli import service_slurm
from piolet.cli.common import Format, format_option, print_json, print_table, progress
from piolet.cli.service_site import file_argument, gitops_of, site_platform, today
from piolet.core import config
from piolet.core.errors import PioletError
from piolet.core.files import write_text

if TYPE_CHECKING:
    from piolet.service.listing import Deployed
    from piolet.service.platform import GitOps, Platform
    from piolet.service.publishing import Change

F = TypeVar("F", bound=Callable[..., Any])

dry_run_option = click.option("--dry-run", is_flag=True, help="Print what would be committed.")


def where_options(function: F) -> F:
    """Add the options that say which repository and which branch."""
    branch = click.option("--branch", default="", help="Push to this branch, for a merge request.")
    repository = click.option("--repository", help="The repository's address. [default: the platform's]")
    return branch(repository(function))


@click.command()
@file_argument
@where_options
def diff(path: Path, *, repository: str | None, branch: str) -> int:
    """Print what `deploy` would change in the repository. Exits with 1 if that is anything."""
    from piolet.service import publishing

    platform = site_platform()
    patch = publishing.preview(_deployment(path, platform), gitops_of(platform, repository), branch)
    click.echo(patch, nl=False)
    return int(bool(patch))


@click.command()
@file_argument
@where_options
@dry_run_option
@click.option("--guard", "guarded", is_flag=True, help="Deploy only if the file passes `piolet guard env`.")
def deploy(path: Path, *, repository: str | None, branch: str, dry_run: bool, guarded: bool) -> None:
    """Check the service, and commit its manifests to the repository that Argo CD reads, or submit its jobs.

    Jobs of Slurm take over from those of the deployment before, once they answer.
    """
    from piolet.service import checking, reading

    file = reading.read(path)
    if guarded:
        from piolet.launch import guarding

        guarding.check_files([file.document.path], config.load().settings)
    platform = service_slurm.platform_of(file)
    if service_slurm.is_for(file):
        checking.admit(file, platform, today())
        service_slurm.deploy(file, dry_run=dry_run)
        return
    _publish(_deployment(path, platform), gitops_of(platform, repository), branch, dry_run=dry_run)


@click.command()
@click.argument("service", metavar="PROJECT/SERVICE")
@where_options
@dry_run_option
@click.option("--now", is_flag=True, help="Cancel jobs of Slurm at once, and what they are answering.")
def rm(service: str, *, repository: str | None, branch: str, dry_run: bool, now: bool) -> None:
    """Take a service out of the repository; Argo CD then deletes its objects, and its volumes with them.

    A service that runs as jobs of Slurm takes no more requests, and ends when those under way have.
    """
    from piolet.service import publishing

    project, name = publishing.named(service)
    if not repository and service_slurm.remove(project, name, now=now, dry_run=dry_run):
        return
    change = publishing.removal(project, name)
    _publish(change, gitops_of(site_platform(), repository), branch, dry_run=dry_run)


@click.command()
@file_argument
@click.option("--days", type=click.IntRange(1), default=90, show_default=True, help="How long from today.")
@where_options
@dry_run_option
def renew(path: Path, *, days: int, repository: str | None, branch: str, dry_run: bool) -> None:
    """Move the end of the service's lease in its file, and deploy the file as it then is."""
    from piolet.service import checking, publishing, reading, rewriting

    file = rewriting.renewed(reading.read(path), today() + timedelta(days=days))
    platform = service_slurm.platform_of(file)
    if service_slurm.is_for(file):
        checking.admit(file, platform, today())
        service_slurm.renew(file, dry_run=dry_run)
    else:
        change = publishing.deployment(file, platform, today())
        _publish(change, gitops_of(platform, repository), branch, dry_run=dry_run)
    if not dry_run:
        write_text(file.document.path, file.source)
        click.echo(f"{file.document.path}: expires = {file.service.expires}")


@click.command()
@click.argument("project", default="")
@where_options
@format_option
def status(project: str, *, repository: str | None, branch: str, output: Format) -> None:
    """Print the services of PROJECT or of all: your own on Slurm, and those that the repository has.

    Of jobs that wait, why and when Slurm expects them.

    The Kubernetes cluster is not asked.
    """
    from piolet.core.run import SystemRunner
    from piolet.service import listing

    settings = config.load().settings
    found, seen = listing.on_slurm(settings, SystemRunner(), project), ""
    if repository or settings.service.platform.exists() or not found:
        try:
            gitops = gitops_of(site_platform(), repository)
            commit, in_git = listing.deployed(gitops, project, branch)
        except PioletError as error:
            if not found:
                raise
            seen = f"the repository was not read: {error}"
        else:
            found += in_git
            seen = f"as {gitops.url} has it at {commit[:12]}; what runs in the cluster cannot be seen from here"
    if output is Format.JSON:
        print_json([asdict(each) for each in found])
        return
    rows = [(each.project, each.service, *_described(each)) for each in found]
    print_table(("project", "service", "runs on", "replicas", "reached by", "expires", "image, or state"), rows)
    for each in found:
        click.echo("".join(f"{each.project}/{each.service}: {job}\n" for job in each.waiting), nl=False)
    click.echo(seen, err=True, nl=bool(seen))


@click.command()
@file_argument
@format_option
def cost(path: Path, output: Format) -> None:
    """Print what the service reserves in a month, used or not, before anything is deployed."""
    from piolet.service import estimating, reading, render

    file = reading.read(path)
    if service_slurm.is_for(file):
        found = estimating.monthly_on_slurm(file.service)
    else:
        found = estimating.monthly(render.rendered(file.service, site_platform(), file.contents).objects)
    if output is Format.JSON:
        print_json(asdict(found))
        return
    rows = [("GPU-hours", *found.gpu_hours), ("CPU-hours", *found.cpu_hours), ("node-hours", *found.node_hours)]
    shown = [(name, f"{least:g}", f"{most:g}") for name, least, most in rows]
    print_table(("a month", "least", "most"), [*shown, ("GiB of storage", *[f"{found.storage_gib:g}"] * 2)])


@click.command()
@click.option(
    "--notice-days", type=click.IntRange(0), default=14, show_default=True, help="Name leases that end within."
)
@where_options
@dry_run_option
def expire(*, notice_days: int, repository: str | None, branch: str, dry_run: bool) -> int:
    """Stop the services whose lease is over, by one commit that scales them to zero; operators run it every day.

    Those that end within the days of notice are named. Volumes stay, and `renew` wakes a service. Exits with 1 if a
    lease is over or ends soon. Jobs of Slurm end by themselves.
    """
    from piolet.service import expiring

    gitops = gitops_of(site_platform(), repository)
    with progress(f"reading {gitops.url}"):
        found = expiring.expire(gitops, today(), notice_days, branch=branch, dry_run=dry_run)
    if dry_run:
        click.echo(found.published.patch, nl=False)
    for each in found.over:
        click.echo(f"{each.project}/{each.service}: over since {each.expires}")
    for each in found.soon:
        click.echo(f"{each.project}/{each.service}: ends on {each.expires}; piolet service renew moves that")
    if found.published.commit:
        click.echo(f"pushed {found.published.commit[:12]} to {found.published.branch}")
    return int(bool(found.over or found.soon))


COMMANDS = (diff, deploy, renew, rm, status, cost, expire)


def _described(each: Deployed) -> tuple[str, ...]:
    if each.problem:
        return ("", "", "", "", f"unreadable: {each.problem}")
    expires = str(each.expires or "never")
    over = " (over)" if each.expires and each.expires < today() else ""
    return each.run_on, str(each.most_replicas), each.expose, expires + over, each.state or each.image


def _publish(change: Change, gitops: GitOps, branch: str, *, dry_run: bool) -> None:
    from piolet.service import publishing

    if dry_run:
        click.echo(publishing.preview(change, gitops, branch), nl=False)
        return
    with progress(f"pushing to {gitops.url}"):
        done = publishing.publish(change, gitops, branch)
    if not done.commit:
        click.echo(f"{change.directory}: nothing to change on {done.branch}")
        return
    click.echo(f"{change.directory}: pushed {done.commit[:12]} to {done.branch}")
    if done.branch != gitops.branch:
        click.echo(f"it takes effect once {done.branch} is merged into {gitops.branch}", err=True)


def _deployment(path: Path, platform: Platform) -> Change:
    from piolet.service import publishing, reading

    return publishing.deployment(reading.read(path), platform, today())
