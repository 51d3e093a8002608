"""`piolet fleet serve`, `report` and `token`: the service, what nodes tell it, and who may."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import click

from piolet.cli.common import print_table
from piolet.core import config
from piolet.core.run import SystemRunner
from piolet.core.text import plural

NOT_DELIVERED = 1


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8421, show_default=True, help="Port; 0 takes a free one.")
@click.argument("logbooks", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
def serve(host: str, port: int, logbooks: tuple[Path, ...]) -> None:
    """Decide and act for the fleet, all the time: take reports, look at Slurm and LOGBOOKS, do what follows.

    It is the only one that writes; with the setting fleet.service orders of operators go to it. Further instances wait
    until it ends.
    """
    from piolet.fleet import api, policy
    from piolet.fleet.service import Service

    settings = config.load().settings
    policy.load(settings.fleet.policy)  # what is wrong with it is said before anything begins
    runner = SystemRunner()
    service = Service(
        settings.fleet.database, lambda: policy.load(settings.fleet.policy), runner, settings.cluster, logbooks
    )
    api.serve(service, settings.fleet, runner, host, port)


@click.command()
@click.option("--gpus", "look", is_flag=True, help="And what this node's GPUs and kernel log tell of them; as root.")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def report(files: tuple[Path, ...], *, look: bool) -> int:
    """Report the evidence in FILES to the service, and what is left from before. Exit status 1 if some still waits.

    On a node: reports are kept in the setting fleet.spool until the service has them on its disk.
    """
    from piolet.fleet import spool

    settings = config.load().settings.fleet
    for path in files:
        spool.keep(settings.spool, spool.read_items(path))
    if look:
        spool.keep(settings.spool, _gpus())
    sent = spool.deliver(settings.spool, spool.poster(settings, SystemRunner()))
    click.echo(f"{sent.new} new to the fleet, {plural(sent.waiting, 'report')} waiting, {sent.refused} refused")
    if sent.refused:
        click.echo(f"piolet: see {settings.spool / 'refused'} for why", err=True)
    if sent.waiting:
        click.echo(f"piolet: {sent.why}", err=True)
    return NOT_DELIVERED if sent.waiting or sent.refused else 0


def _gpus() -> list[dict[str, Any]]:
    """Return what this node sees of its GPUs; in an Epilog Slurm names the node and the job."""
    from piolet.fleet import gpus

    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]
    return gpus.items(gpus.look(config.load().settings.record.kernel_log), node, os.environ.get("SLURM_JOB_ID", ""))


@click.group()
def token() -> None:
    """Who may ask the service."""


@token.command("new")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(["submit", "read", "operate"]),
    help="What it may; may be given again.",
)
@click.option("--nodes", default="", help="Of which nodes it may speak, such as node[1-4]. [default: all]")
def token_new(name: str, scopes: tuple[str, ...], nodes: str) -> None:
    """Make a token NAME and print it. It is shown this once."""
    from piolet.fleet import identity, store

    with store.opened(config.load().settings.fleet.database) as opened:
        click.echo(identity.new_token(opened, name, [identity.Scope(scope) for scope in scopes], nodes))


@token.command("list")
def token_list() -> None:
    """List the tokens, without what is secret of them."""
    from piolet.fleet import store

    with store.opened(config.load().settings.fleet.database) as opened:
        rows = [(row["name"], row["scopes"], row["nodes"] or "all") for row in opened.tokens()]
    print_table(("token", "scopes", "nodes"), rows)


@token.command("revoke")
@click.argument("name")
def token_revoke(name: str) -> None:
    """Let the token NAME open nothing any more."""
    from piolet.fleet import identity, store

    with store.opened(config.load().settings.fleet.database) as opened:
        identity.revoke(opened, name)
    click.echo(f"{name} is revoked")


COMMANDS = (serve, report, token)
