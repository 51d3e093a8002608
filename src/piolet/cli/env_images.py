"""`piolet env pull`, `images`, `import`, `rm`, `gc`: the store of images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from piolet.cli.common import Format, format_option, print_json, print_table
from piolet.core import config
from piolet.core.errors import UsageError
from piolet.core.run import SystemRunner
from piolet.core.text import did_you_mean
from piolet.env.edf import ARCHITECTURES
from piolet.env.store import Store, Stored, store_of
from piolet.logbook import layout
from piolet.tools import squashfs
from piolet.tools.oci import reference
from piolet.tools.oci.reference import Reference

if TYPE_CHECKING:
    from piolet.env.importing import Importer

GB = 1e9
DAY_S = 86400.0


arch_option = click.option(
    "--arch",
    type=click.Choice(ARCHITECTURES),
    help="Architecture of the image; default: the setting env.arch, else that of this machine.",
)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@arch_option
def pull(names: tuple[str, ...], arch: str | None) -> None:
    """Import images from registries into the store, and print their digests.

    The registry is asked what NAME (REGISTRY/IMAGE:TAG) means now, even if the store has an image of that name.
    Credentials are those of podman, docker and enroot.
    """
    with _importer(arch) as importer:
        for name in names:
            stored = importer.pull(_reference(name))
            click.echo(f"{stored.digest}  {stored.size_bytes / GB:.2f} GB  {_reference(name)}")


@click.command(name="import")
@click.argument("source")
@click.option("--name", default="", help="Name in the store. [default: localhost/ and that of the source]")
@arch_option
def import_command(source: str, name: str, arch: str | None) -> None:
    """Import an image from a file into the store, and print its name.

    SOURCE is a squashfs file, an OCI or Docker archive or an OCI directory (of skopeo copy, podman save or docker
    save), or podman:IMAGE or docker:IMAGE for one of their storage. EDFs then use the name as they use those of
    registries.
    """
    from piolet.env.importing import local_name
    from piolet.tools.oci.layout import is_docker_archive

    wanted = _reference(local_name(name, source))
    path = Path(source)
    with _importer(arch) as importer:
        if source.startswith("podman:"):
            importer.from_podman(source.removeprefix("podman:"), wanted)
        elif source.startswith("docker:"):
            importer.from_docker(f"docker-daemon:{source.removeprefix('docker:')}", wanted)
        elif not path.exists():
            raise UsageError(
                "no such image", where=source, remedy="give a file, a directory, podman:IMAGE or docker:IMAGE"
            )
        elif path.is_file() and squashfs.is_image(path):
            importer.from_squashfs(path, wanted)
        elif is_docker_archive(path):
            importer.from_docker(f"docker-archive:{path}", wanted)
        else:
            importer.from_layout(path, wanted)
    click.echo(str(wanted))


@click.command()
@click.argument("context", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="[default: CONTEXT's own]")
@click.option("--name", required=True, help="Name in the store, for instance train:2.")
@click.option("--build-arg", "arguments", multiple=True, metavar="NAME=VALUE", help="A variable of the Containerfile.")
@arch_option
def build(context: Path, file: Path | None, name: str, arguments: tuple[str, ...], arch: str | None) -> None:
    """Build the Containerfile (or Dockerfile) of the directory CONTEXT into the store, and print the image's name.

    buildah or podman does it, without root; EDFs then use the name as they use those of registries.
    """
    from piolet.env.importing import local_name

    names = ("Containerfile", "Dockerfile")
    file = file or next((context / each for each in names if (context / each).is_file()), None)
    if file is None:
        raise UsageError("nothing to build: no Containerfile or Dockerfile", where=str(context), remedy="give --file")
    wanted = _reference(local_name(name, name))
    with _importer(arch) as importer:
        importer.from_containerfile(context, file, arguments, wanted)
    click.echo(str(wanted))


@click.command()
@format_option
def images(output: Format) -> None:
    """List the images of the store."""
    found = _store().images()
    if output is Format.JSON:
        print_json([_row(image) for image in found])
    else:
        rows = [
            (image.name, image.architecture, f"{image.size_bytes / GB:.2f} GB", _day(image.used_s), image.digest[7:19])
            for image in found
        ]
        print_table(("name", "architecture", "size", "last asked for", "digest"), rows)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def rm(names: tuple[str, ...]) -> None:
    """Remove images from the store, by name or by the first digits of the digest.

    A job that is using one may fail; `piolet env gc` removes only what no job can be using.
    """
    store = _store()
    for image in [_named(name, store) for name in names]:
        store.remove(image)
        click.echo(f"removed {image.name} {image.digest}")


@click.command()
@click.option("--keep-days", default=30.0, show_default=True, help="Images asked for within these days stay.")
@click.option("--max-gb", type=float, help="Of the others, remove only until the store is this small.")
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
def gc(keep_days: float, max_gb: float | None, *, dry_run: bool) -> None:
    """Remove images that nobody has asked for lately, and what broken imports left.

    Images that a living job may be using stay, whatever their age.
    """
    from piolet.env import cleaning

    limits = cleaning.Limits(keep_days * DAY_S, None if max_gb is None else int(max_gb * GB))
    store, root, now_s = _store(), layout.root(config.load().settings), cleaning.now()
    jobs = cleaning.Jobs(cleaning.oldest_job_s(SystemRunner()), cleaning.digests_of_jobs(root, now_s))
    chosen = cleaning.choose(store.images(), limits, now_s, jobs)
    for image in chosen:
        if not dry_run:
            store.remove(image)
        verb = "would remove" if dry_run else "removed"
        click.echo(f"{verb} {image.name} {image.digest[7:19]}, last asked for on {_day(image.used_s)}")
    if not dry_run:
        freed = cleaning.clear_leftovers(store, now_s, keep_days * DAY_S)
        click.echo(f"freed {(freed + sum(image.size_bytes for image in chosen)) / GB:.2f} GB")


@click.command()
@click.argument("image", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("sha256")
def trust(image: Path, sha256: str) -> None:
    """Let nodes mount the squashfs file IMAGE in the kernel, once its digest is verified; for administrators.

    Nodes do so with files below the `images=` of plugstack.conf that only root can change.
    """
    from piolet.env import trusting

    click.echo(trusting.trust(image, sha256))


COMMANDS = (pull, import_command, build, images, rm, gc, trust)


def _store() -> Store:
    return store_of(config.load().settings, os.environ)


@contextmanager
def _importer(arch: str | None) -> Iterator[Importer]:
    from piolet.env.importing import Importer, machine
    from piolet.env.telling import Teller

    settings = config.load({"env.arch": arch}).settings
    teller = Teller()
    store = store_of(settings, os.environ)
    try:
        yield Importer(store, settings.env.arch or machine(), os.environ, settings.env.import_timeout_s, show=teller)
    finally:
        teller.end()


def _reference(name: str) -> Reference:
    try:
        return reference.parse(name)
    except ValueError as error:
        raise UsageError(str(error), where=name, remedy="write REGISTRY/IMAGE:TAG") from error


def _named(name: str, store: Store) -> Stored:
    found = store.images()
    by_digest = [image for image in found if image.digest.removeprefix("sha256:").startswith(name)]
    full = name if by_digest else str(_reference(name))
    matching = by_digest or [image for image in found if image.name == full]
    if len(matching) != 1:
        several = "several images are meant" if matching else "no such image in the store"
        known = [image.digest[7:19] if matching else image.name for image in matching or found]
        raise UsageError(several, where=name, remedy=did_you_mean(full, known))
    return matching[0]


def _row(image: Stored) -> dict[str, Any]:
    keys = ("name", "digest", "architecture", "size_bytes", "imported_s", "used_s", "path")
    return {key: getattr(image, key) for key in keys}


def _day(time_s: float) -> str:
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M}"
