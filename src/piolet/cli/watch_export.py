"""`piolet watch export` and `dashboards`: a running job in other people's stores."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("job")
@click.option("--port", default=9418, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 for a free one.")
@click.option("--push", "url", metavar="URL", help="Push all samples to a store instead of serving them.")
@click.option(
    "--as", "protocol", type=click.Choice(["remote-write", "otlp"]), default="remote-write", show_default=True
)
@click.option(
    "--headers", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File with headers to send."
)
@click.option("--every", "every_s", type=click.FloatRange(1, 300), default=10.0, show_default=True, help="Seconds.")
def export(job: str, port: int, *, url: str | None, protocol: str, headers: Path | None, every_s: float) -> None:
    """Serve the newest samples of JOB, which runs, to Prometheus at /metrics, or push them all; ends with the job.

    It listens on this machine only, where every user can read it. With --push, every sample goes to a store that takes
    Prometheus remote-write, or OTLP over HTTP.
    """
    from functools import partial

    from piolet.watch import archive, exporter, push

    opener = partial(archive.find_configured, job)
    if url is None:
        exporter.follow(opener, port, click.echo)
        return
    with push.client(headers) as client:
        push.follow(opener, push.Pusher(url, push.Protocol(protocol), client), every_s)


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def dashboards(directory: Path) -> None:
    """Write Grafana dashboards of a job, a node and the fleet into DIRECTORY, to import or to provision.

    They ask for the metrics of `piolet watch export`. Files of the same names are replaced.
    """
    from piolet.core.files import write_json
    from piolet.watch.dashboards import DASHBOARDS, document

    for dashboard in DASHBOARDS:
        path = directory / f"piolet-{dashboard.name}.json"
        write_json(path, document(dashboard))
        click.echo(path)


COMMANDS = (export, dashboards)
