"""`piolet service run --local`: a service on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from piolet.cli.service_site import file_argument, site_platform
from piolet.cli.service_slurm import is_for
from piolet.core.errors import UsageError


@click.command()
@file_argument
@click.option("--local", is_flag=True, help="On this machine, under Podman.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of this machine. [default: a free one]")
@click.option(
    "--secrets",
    type=click.Path(path_type=Path, dir_okay=False),
    help='Their values in TOML: VARIABLE = "value".',
)
def run(path: Path, *, local: bool, port: int, secrets: Path | None) -> int:
    """Run the service here with `podman kube play`, until Ctrl-C: a development runtime, not Kubernetes.

    Its pod is the one that `render` prints; probes, the forwarded port and volumes are Piolet's. Volumes stay.
    """
    from piolet.core.sockets import free_port
    from piolet.service import development, reading

    file = reading.read(path)
    if not local:
        raise UsageError("services run where `deploy` puts them", remedy="to try one here: piolet service run --local")
    if is_for(file):
        raise UsageError("jobs of Slurm do not run under Podman", remedy="run the command of the service by hand")
    values = development.read_secrets(secrets)
    click.echo("a development runtime, not Kubernetes: no login, no network policy, no quota", err=True)
    with development.stoppable():
        return development.run(
            file, site_platform(), port=port or free_port(), secrets=values, say=lambda text: click.echo(text, err=True)
        )
