"""`piolet web`: the web application."""

from __future__ import annotations

import click


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8418, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 for a free one.")
def command(host: str, port: int) -> None:
    """Serve jobs, past and running, to a browser.

    Without further settings it listens on this machine only and prints a link that logs in once. On a login node,
    open it through a tunnel: ssh -L 8418:127.0.0.1:8418 LOGIN-NODE. Settings: `piolet config keys`, web.
    """
    from piolet.core import config
    from piolet.web.app import serve

    serve(config.load().settings, host, port)
