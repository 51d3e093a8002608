"""`piolet data layout` and `move`: where and how data lies on the site's file systems."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from piolet.cli.common import counting

if TYPE_CHECKING:
    from piolet.core.settings import Settings

FINDINGS = 1


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@click.option("--apply", "applying", is_flag=True, help="Make DIR and set its layout; without it nothing is changed.")
@click.option("--migrate", is_flag=True, help="With --apply: also migrate its large files that lie on one OST.")
def layout(directory: Path, *, applying: bool, migrate: bool) -> int:
    """Say how DIR, on Lustre, should be striped, and which commands do it; with --apply do it, and read it back.

    DIR need not be there. Nothing may write to files that are migrated. Exit status: 0 nothing is to be done or all was
    done, 1 something is.
    """
    from piolet.core.errors import UsageError
    from piolet.core.run import SystemRunner
    from piolet.data import striping

    if migrate and not applying:
        raise UsageError(
            "--migrate changes files", where="--migrate", remedy="give --apply too; without it see the plan"
        )
    runner = SystemRunner()
    chosen = striping.prepare(directory.absolute(), runner)
    commands = chosen.commands()
    if not commands:
        click.echo(f"{directory} is striped as it should be: {chosen.reason}")
        return 0
    click.echo(f"{directory}: {chosen.reason}")
    done = []
    for command in striping.apply(chosen, runner, migrate=migrate) if applying else ():
        click.echo(f"done: {shlex.join(command)}")
        done.append(command)
    left = [command for command in commands if command not in done]
    for command in left:
        click.echo(f"to do: {shlex.join(command)}")
    return FINDINGS if left else 0


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--keep", is_flag=True, help="Leave SOURCE where it is: a copy.")
@click.option(
    "--after", type=click.IntRange(1), multiple=True, metavar="JOB", help="Begin when this job has succeeded."
)
@click.option("--then", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="SCRIPT",
              help="Submit this batch script too, to begin when the move has succeeded.")  # fmt: skip
@click.option("--partition", help="Partition of the transfer. [default: data.transfer_partition]")
@click.option("--time", "time_limit", default="", help="Time limit in Slurm's form; default: the partition's.")
@click.option("--here", is_flag=True, help="Move now, in this process, instead of in a job.")
@click.option("--dry-run", is_flag=True, help="Print the batch script and submit nothing.")
def move(
    source: Path,
    target: Path,
    *,
    keep: bool,
    after: tuple[int, ...],
    then: Path | None,
    partition: str | None,
    time_limit: str,
    here: bool,
    dry_run: bool,
) -> int:
    """Move SOURCE, a file or directory, to TARGET on another file system, in a job of its own.

    Every file is read back and compared; SOURCE is deleted in the end, if it has not changed. After a job was ended,
    submitting it again goes on with it.
    """
    from piolet.core import config
    from piolet.core.errors import UsageError

    if not here:
        return _submit(
            source, target, keep=keep, after=after, then=then, partition=partition, time_limit=time_limit,
            dry_run=dry_run, settings=config.load().settings,
        )  # fmt: skip
    if after or then or partition or time_limit or dry_run:
        raise UsageError(
            "this is for jobs", where="--after, --then, --partition, --time, --dry-run", remedy="leave out --here"
        )
    from piolet.core.text import plural, size
    from piolet.data import moving

    with counting() as show:
        done = moving.move(
            source.absolute(), target.absolute(), keep=keep, report=lambda now, of: show(f"{now} of {of} files")
        )
    gone = "the source is deleted" if done.deleted else "the source is kept"
    click.echo(f"{target}: {plural(done.files, 'file')}, {size(done.size_bytes)}, read back and the same; {gone}")
    return 0


def _submit(
    source: Path,
    target: Path,
    *,
    keep: bool,
    after: tuple[int, ...],
    then: Path | None,
    partition: str | None,
    time_limit: str,
    dry_run: bool,
    settings: Settings,
) -> int:
    from piolet.data import transfers
    from piolet.tools.slurm import sbatch

    script = transfers.script(
        transfers.Transfer(source.absolute(), target.absolute(), keep=keep),
        partition=partition or settings.data.transfer_partition or settings.run.partition,
        account=settings.run.account,
        time_limit=time_limit,
        after=after,
    )
    if dry_run:
        click.echo(script, nl=False)
        return 0
    job = sbatch.submit(script).job
    click.echo(f"job {job} moves {source} to {target}; its output: {transfers.log_of(job)}")
    if then:
        following = sbatch.submit(then, chosen=transfers.after_options([job])).job
        click.echo(f"job {following} ({then}) begins when it has succeeded")
    else:
        click.echo(f"to begin after it: sbatch {shlex.join(transfers.after_options([job]))} SCRIPT")
    return 0
