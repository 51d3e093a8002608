"""`piolet data ckpt`: how often to write checkpoints, which are complete, which may go."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from piolet.cli import data_io
from piolet.cli.common import Format, format_option, print_json, print_table, progress

if TYPE_CHECKING:
    from piolet.data.cadence import Cadence, Footprint
    from piolet.data.checkpoints.audit import Audit
    from piolet.data.checkpoints.prune import Choice

FINDINGS = 1


@click.group()
def ckpt() -> None:
    """Checkpoints."""


@ckpt.command()
@click.option("--write", "write_s", type=float, help="Seconds that training stands still for one.")
@click.option("--from-job", "like_job", metavar="JOB", help="Take that, and --nodes, from the logbook of a job.")
@click.option("--mtbf-hours", type=float, help="Mean hours between failures of the whole job.")
@click.option("--node-mtbf-hours", type=float, help="Mean hours between failures of one node; needs --nodes.")
@click.option("--failures", type=click.Choice(["logbooks", "fleet"]), help="Take those from jobs, or from the fleet.")
@click.option("--nodes", type=click.IntRange(1), help="Nodes of the job.")
@click.option("--persist", "persist_s", type=float, default=0.0, help="Seconds until an asynchronous one is safe.")
@click.option("--restart", "restart_s", type=float, default=0.0, help="Seconds from a failure until training goes on.")
@click.option("--like", type=click.Path(path_type=Path, exists=True), help="A checkpoint, to count bytes and inodes.")
@click.option("--keep", type=click.IntRange(1), default=3, show_default=True, help="Checkpoints that are kept.")
@format_option
def plan(
    *,
    write_s: float | None,
    like_job: str | None,
    mtbf_hours: float | None,
    node_mtbf_hours: float | None,
    failures: str | None,
    nodes: int | None,
    persist_s: float,
    restart_s: float,
    like: Path | None,
    keep: int,
    output: Format,
) -> None:
    """Say how often to write a checkpoint, and what that costs.

    The failure rate is that of the job (--mtbf-hours), or of its nodes (--node-mtbf-hours, or --failures).
    """
    from piolet.core.errors import UsageError
    from piolet.data import cadence

    seen_s, seen_nodes = _seen(like_job) if like_job else (None, None)
    if mtbf_hours is None:
        nodes = nodes or seen_nodes
    mtbf_s = _mtbf_s(mtbf_hours, node_mtbf_hours, failures, nodes)
    try:
        cost_s = write_s or seen_s or 0.0
        found = cadence.cadence(cost_s, mtbf_s, persist_s=persist_s, restart_s=restart_s)
    except ValueError as error:
        raise UsageError(str(error), where="--write, --from-job, --mtbf-hours, --persist, --restart") from error
    taken = None
    if like:
        amount, files = _measured(like)
        taken = cadence.footprint(found.interval_s, cost_s, size_bytes=amount, files=files, keep=keep)
    if output is Format.JSON:
        told = {"write_s": cost_s, "mtbf_s": mtbf_s, **asdict(found)}
        print_json(told | {"footprint": asdict(taken) if taken else None})
        return
    click.echo(f"one takes {cost_s:.0f} s; a failure every {mtbf_s / 3600:.1f} h")
    _print_plan(found, taken)


def _seen(job: str) -> tuple[float, int]:
    """Return the seconds of a job's usual checkpoint, and its nodes."""
    from piolet.core.errors import UsageError
    from piolet.logbook.storage import of_logbook

    logbook = data_io.find(job)
    record, found = of_logbook(logbook)
    if found.checkpoints is None:
        raise UsageError(
            "no checkpoint of this job is known",
            where=str(logbook.path),
            remedy='let the program say piolet.phase("checkpoint"), or give --write',
        )
    return found.checkpoints.median_s, sum(held.used for held in record.allocation)


def _mtbf_s(job_hours: float | None, node_hours: float | None, failures: str | None, nodes: int | None) -> float:
    from piolet.core.errors import UsageError
    from piolet.data.cadence import job_mtbf_s

    given = [each is not None for each in (job_hours, node_hours, failures)]
    if sum(given) == 1 and job_hours is not None and nodes is None:
        return job_hours * 3600
    if sum(given) == 1 and job_hours is None and nodes is not None:
        node_s = node_hours * 3600 if node_hours is not None else _seen_mtbf_s(str(failures))
        return job_mtbf_s(node_s, nodes)
    raise UsageError(
        "the failure rate is not known, or given twice",
        where="--mtbf-hours, --node-mtbf-hours, --failures",
        remedy="give --mtbf-hours, or one of --node-mtbf-hours and --failures with --nodes or --from-job",
    )


def _seen_mtbf_s(where: str) -> float:
    """Return the seconds between failures of a node, as logbooks or the fleet have seen them, and say from what."""
    from piolet.core import config
    from piolet.launch import failure_rate
    from piolet.logbook import keeping, layout

    settings = config.load().settings
    if where == "fleet":
        from piolet.fleet import center

        rate = failure_rate.of_ledger(center.entries(settings.fleet.database), str(settings.fleet.database))
    else:
        root = layout.root(settings)
        books = keeping.books(root, settings.cluster)
        rate = failure_rate.of_logbooks((book.logbook for book in books), str(root))
    mtbf_s = rate.node_mtbf_s
    click.echo(f"{rate.failures} failures in {rate.node_hours:.0f} node hours ({rate.source})", err=True)
    return mtbf_s


def _measured(path: Path) -> tuple[int, int]:
    """Return bytes and inodes of a checkpoint: a file, or a directory with all that is in it."""
    import os

    from piolet.core.errors import storage_errors

    with storage_errors(path, "read the checkpoint"):
        every = [path, *path.rglob("*")]
        return sum(os.lstat(each).st_size for each in every if each.is_file()), len(every)


def _print_plan(found: Cadence, taken: Footprint | None) -> None:
    from piolet.core.text import count, size

    bound = f" (not less: {found.bounded_by})" if found.bounded_by else ""
    click.echo(f"a checkpoint every {found.interval_s:.0f} s of work{bound}; Young: {found.young_s:.0f} s")
    click.echo(f"{found.lost_ratio:.1%} of the time is lost")
    if taken:
        a_day = f"{taken.a_day:.0f} a day: {size(taken.bytes_a_day)}, {count(taken.inodes_a_day)} inodes"
        click.echo(f"{a_day}; kept at most: {size(taken.kept_bytes)}, {count(taken.kept_inodes)} inodes")


@ckpt.command("audit")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@format_option
def audit_command(directory: Path, output: Format) -> int:
    """Say which checkpoints in DIR are complete, and what the others lack.

    Changes nothing and runs nothing that it reads. Exit status: 0 all are complete, 1 one is torn, or `latest` or a
    link points to nothing.
    """
    from piolet.data.checkpoints.audit import audit

    with progress(f"reading {directory}"):
        found = audit(directory)
    if output is Format.JSON:
        print_json(asdict(found) | {"named": sorted(found.named)})
    else:
        _print_audit(found)
    return FINDINGS if found.dangling or any(one.faults for one in found.checkpoints) else 0


_SHOWN = 5


def _print_audit(found: Audit) -> None:
    from piolet.core.text import count, size

    if not found.checkpoints:
        click.echo(f"{found.directory}: no checkpoints of a known format")
    else:
        rows = [
            (
                one.path.name,
                ", ".join(one.formats),
                "torn" if one.faults else "complete",
                size(one.frees_bytes),
                count(one.files),
                "yes" if one.path.name in found.named else "",
            )
            for one in found.checkpoints
        ]
        print_table(("checkpoint", "format", "state", "size", "files", "pointed to"), rows)
    for one in found.checkpoints:
        _print_faults(one.path.name, one.faults)
    _print_rest(found)


def _print_faults(name: str, faults: tuple[str, ...]) -> None:
    for fault in faults[:_SHOWN]:
        click.echo(f"{name}: {fault}")
    if len(faults) > _SHOWN:
        click.echo(f"{name}: and {len(faults) - _SHOWN} more")


def _print_rest(found: Audit) -> None:
    for name in found.dangling:
        click.echo(f"something points to {name}, which is not there")
    if found.unknown:
        click.echo(f"not known as checkpoints, and left alone: {', '.join(found.unknown)}")
    for path in found.half_deleted:
        click.echo(f"{path.name}: a deletion was interrupted; prune --apply finishes it")


@ckpt.command("prune")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--keep", type=click.IntRange(1), required=True, help="The newest complete ones to keep.")
@click.option("--every", type=click.IntRange(1), help="Keep also those whose step is a multiple of this.")
@click.option("--apply", "applying", is_flag=True, help="Delete; without it nothing is changed.")
@format_option
def prune_command(directory: Path, keep: int, every: int | None, output: Format, *, applying: bool) -> None:
    """Say which checkpoints in DIR may go and what that frees; with --apply delete them.

    Never goes: the newest complete one, one that `latest` or a link points to, what is no known checkpoint.
    """
    import time

    from piolet.data.checkpoints import prune
    from piolet.data.checkpoints.audit import audit

    with progress(f"reading {directory}"):
        found = audit(directory)
    choices = prune.choose(found, prune.Policy(keep, every), time.time())
    if output is Format.TABLE:
        _print_choices(choices)
        _print_rest(found)
    gone = []
    if applying:
        with progress("deleting"):
            gone = list(prune.apply(found, choices))
    if output is Format.JSON:
        print_json({"choices": [asdict(each) for each in choices], "deleted": [each.checkpoint.path for each in gone]})
    else:
        _print_freed(gone if applying else [each for each in choices if each.delete], applying=applying)


def _print_choices(choices: tuple[Choice, ...]) -> None:
    from piolet.core.text import count, size

    rows = [
        (
            "delete" if each.delete else "keep",
            each.checkpoint.path.name,
            each.reason,
            size(each.checkpoint.frees_bytes),
            count(each.checkpoint.files),
        )
        for each in choices
    ]
    print_table(("", "checkpoint", "because", "size", "files"), rows)


def _print_freed(going: list[Choice], *, applying: bool) -> None:
    from piolet.core.text import plural, size

    amount = sum(each.checkpoint.frees_bytes for each in going)
    files = sum(each.checkpoint.files for each in going)
    what = f"{plural(len(going), 'checkpoint')}: {size(amount)} in {plural(files, 'file')}"
    click.echo(f"deleted {what}" if applying else f"would delete {what}" + ("; --apply deletes" if going else ""))
