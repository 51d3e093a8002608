"""`piolet data io`: what a job did with storage."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from piolet.cli.common import Format, format_option, print_json, print_table

if TYPE_CHECKING:
    from piolet.logbook.layout import Logbook
    from piolet.logbook.storage import JobStorage, MountUse

FINDINGS = 1


@click.command("io")
@click.argument("job")
@format_option
def io_command(job: str, output: Format) -> int:
    """Say what JOB did with storage: I/O a mount, small reads, checkpoints, time lost waiting.

    JOB is a job id, `last`, or the directory of a logbook. Exit status: 0 nothing to mend, 1 findings.
    """
    from piolet.data.jobs import findings
    from piolet.logbook.storage import of_logbook

    _, found = of_logbook(find(job))
    judged = findings(found)
    if output is Format.JSON:
        print_json(asdict(found) | {"findings": [asdict(each) for each in judged]})
        return FINDINGS if judged else 0
    _print(found)
    for finding in judged:
        click.echo(f"\n{finding.severity}: {finding.subject}: {finding.reason}\n  {finding.suggested_action}")
    return FINDINGS if judged else 0


def find(job: str) -> Logbook:
    """Return the logbook of a job of the user's."""
    from piolet.core import config
    from piolet.logbook import layout

    settings = config.load().settings
    return layout.find(job, layout.root(settings), settings.cluster)


def _print(found: JobStorage) -> None:
    if found.mounts:
        columns = ("mount", "kind", "read", "written", "reads", "of these small", "a read", "takes", "other operations")
        print_table(columns, [_row(each) for each in found.mounts])
    else:
        click.echo("no mount was recorded: the recorder samples Lustre, NFS and local disks")
    if found.checkpoints:
        told = found.checkpoints
        click.echo(f"{told.count} checkpoints of {told.median_s:.1f} s, {told.share:.1%} of the time")
    stalled = "not known" if found.stall_s is None else f"{found.stall_s:.0f} s, {found.stall_share:.1%} of the time"
    click.echo(f"waiting for storage while GPUs idle, outside of checkpoints: {stalled}")


def _row(each: MountUse) -> tuple[str, ...]:
    from piolet.core.text import count, size

    small = "" if each.small_read_share is None else f"{each.small_read_share:.0%}"
    mean = "" if each.mean_read_bytes is None else size(each.mean_read_bytes)
    latency = "" if each.read_latency_s is None else f"{each.read_latency_s * 1e3:.2f} ms"
    numbers = (size(each.read_bytes), size(each.write_bytes), count(each.read_ops))
    return (each.fs, each.kind, *numbers, small, mean, latency, count(each.metadata_ops))
