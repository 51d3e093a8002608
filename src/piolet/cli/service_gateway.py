"""`piolet service gateway` and `key`: one stable address in front of inference services, and who may use it."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("gateway.toml"))
def gateway(path: Path) -> None:
    """Serve the OpenAI API for the services that a gateway.toml names, until interrupted.

    The model of a request is PROJECT/SERVICE. A change of the file takes effect at once.
    """
    from piolet.service.gateway import app

    app.serve(path)


@click.command()
@click.argument("name")
@click.option("--project", required=True, help="The project whose services the key opens.")
def key(name: str, project: str) -> None:
    """Print a new key, once, and the table that lets it in, which belongs into the gateway.toml."""
    from piolet.service.gateway import settings

    made = settings.new_key()
    table = settings.table(name, project, made)
    click.echo(made)
    click.echo(f"for the gateway.toml, which keeps no keys:\n\n{table}\nrequests_per_minute = 600", err=True)


COMMANDS = (gateway, key)
