"""`piolet data stage` and `unstage`: onto every node of a job, and away again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from piolet.cli.common import Format, counting, format_option, print_json

if TYPE_CHECKING:
    from piolet.core.nodeset import NodeSet
    from piolet.data.staging.stage import Outcome

FINDINGS = 1
_job_option = click.option(
    "--job", type=click.IntRange(1), help="A running job of yours; default: the one around this."
)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@_job_option
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True, help="Nodes that read SOURCE.")
@click.option(
    "--direct/--chain", default=None, help="Every node reads SOURCE, or they pass it on; default: as measured."
)
@click.option("--interface", default="", help="Network interface between the nodes; default: that of their names.")
@format_option
def stage(
    source: Path, target: Path, *, job: int | None, seeds: int, direct: bool | None, interface: str, output: Format
) -> int:
    """Copy SOURCE, a file or directory, to TARGET on every node of the job: its memory (/dev/shm) or its disk.

    What a node has from before, and is still the same, is not copied again.

    Exit status: 0 every node has it, 1 not all.
    """
    from piolet.data.staging import stage as staging

    with counting() as show:
        outcome = staging.stage(
            staging.Request(source, target, _nodes(job), job, seeds, direct, interface),
            report=lambda what, share: show(f"{what} {source}: {share:.0%}"),
        )
    if output is Format.JSON:
        print_json(asdict(outcome) | {name: str(getattr(outcome, name)) for name in ("there", "reused")})
    else:
        _print(outcome, target)
    return FINDINGS if outcome.lost else 0


def _print(outcome: Outcome, target: Path) -> None:
    from piolet.core.text import plural, size

    nodes = plural(len(outcome.there), "node")
    click.echo(f"{target}: {size(outcome.size_bytes)} on {nodes} in {outcome.duration_s:.1f} s")
    click.echo(outcome.way)
    if outcome.reused:
        click.echo(f"there before: {outcome.reused}")
    for node, troubles in outcome.went_around.items():
        click.echo(f"{node} went around {'; '.join(troubles)}")
    for node, reason in outcome.lost.items():
        click.echo(f"{node} has it not: {reason}")


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@_job_option
def unstage(target: Path, *, job: int | None) -> int:
    """Delete on every node what was staged to TARGET, and what killed stagings left there.

    Exit status: 0 it is gone, 1 not from every node.
    """
    from piolet.data.staging import stage as staging

    lost = staging.unstage(target, _nodes(job), job)
    for node, reason in lost.items():
        click.echo(f"{node}: {reason}")
    return FINDINGS if lost else 0


def _nodes(job: int | None) -> NodeSet:
    import os

    from piolet.core.errors import UsageError
    from piolet.core.run import SystemRunner
    from piolet.tools.slurm import allocation, squeue

    if job is not None:
        found = squeue.jobs(SystemRunner(), ids=[str(job)])
        if found and found[0].nodes:
            return found[0].nodes
        raise UsageError("no such running job", where=f"--job {job}", remedy="see squeue --me")
    here = allocation.from_environ(os.environ)
    if here is None:
        raise UsageError(
            "not within a job", where="SLURM_JOB_ID", remedy="write this into the batch script, or give --job JOBID"
        )
    return here.nodes
