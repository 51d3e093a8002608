"""`piolet run`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("-N", "--nodes", default=1, show_default=True, help="Nodes for the program.")
@click.option("--spares", default=0, show_default=True, help="More nodes to hold until vetting has chosen.")
@click.option(
    "--ntasks-per-node", "tasks_per_node", default=1, show_default=True, help="Tasks of the program on each node."
)
@click.option("--gpus-per-node", type=int, help="GPUs to ask for on each node. [default: all]")
@click.option("--env", "environment", default="", metavar="EDF", help="Container environment: a name, a path, a plan.")
@click.option("--vet", "protocol", default="", metavar="PROTOCOL", help="Vet the nodes first; refuse the bad ones.")
@click.option("--guard", is_flag=True, help="Refuse secrets in the command, its scripts and its environment.")
@click.option(
    "--stage",
    multiple=True,
    metavar="SRC[:DST]",
    help="Copy onto every node for the time of the run: to memory, or to DST.",
)
@click.option("--record", is_flag=True, help="Record GPUs and hosts into the logbook.")
@click.option("-p", "--partition", help="Partition to submit to.")
@click.option("-A", "--account", help="Account to charge.")
@click.option("-t", "--time", "time_limit", help="Time limit, in Slurm's form.")
@click.option("-x", "--exclude", default="", metavar="NODES", help="Nodes to keep out, in Slurm's form.")
@click.option("--restarts", default=0, show_default=True, help="Submit again without bad nodes, so often at most.")
@click.option("--attempt", default=0, hidden=True)
@click.option("--previous-job", default="", hidden=True)
@click.option(
    "--max-wait", "max_wait_s", type=click.FloatRange(min=0), help="Seconds in the queue; then cancel the job."
)
@click.option("--abort-on", default="", metavar="xid,hang,nan,stall", help="End the program on one of these signs.")
@click.option(
    "--heartbeat",
    "heartbeat_s",
    type=click.FloatRange(min=60),
    help="Seconds without a step or a piolet.log; then end the program.",
)
@click.option(
    "--signal", default="", metavar="SIG@SECONDS", help="Signal to the program before the time limit: USR1@300."
)
@click.option("--chain", default=0, show_default=True, help="Jobs that go on where time was too short, at most.")
@click.option(
    "--checkpoint",
    "checkpoint_s",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds that one takes; the program is told how often to write one.",
)
@click.option("-J", "--job-name", "name", default="", help="Name of the job. [default: the program's]")
@click.option("--local", is_flag=True, help="Run on this machine alone, without Slurm.")
@click.option("--simulate", metavar="MODEL:COUNT", default="", help="With --local: simulate GPUs, as in h100:4.")
@click.option("--het-group", type=int, help="Component of the heterogeneous job that this is called in.")
@click.option("--detach", is_flag=True, help="Submit, print the job id, and do not wait.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the batch script, submit nothing.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def command(
    *,
    command: tuple[str, ...],
    partition: str | None,
    account: str | None,
    time_limit: str | None,
    gpus_per_node: int | None,
    local: bool,
    guard: bool,
    simulate: str,
    detach: bool,
    dry_run: bool,
    max_wait_s: float | None,
    het_group: int | None,
    abort_on: str,
    stage: tuple[str, ...],
    **asked: Any,  # noqa: ANN401 - the other options are named after the fields of a RunRequest
) -> int:
    """Run a program on good nodes, in its container, recorded.

    On a login node this writes a batch script, submits it and follows it; inside an allocation it conducts the run
    there; with --local it needs no Slurm. The exit status is the program's.

    \b
        piolet run -N 4 --spares 1 --env demo --vet ml-training --record -- python train.py
    """  # noqa: D301 - click's mark for a line that must not be wrapped
    from piolet.core import config
    from piolet.launch import copies, start
    from piolet.launch.request import How, RunRequest

    given = {"partition": partition, "account": account, "time_limit": time_limit, "gpus_per_node": gpus_per_node}
    settings = config.load({f"run.{key}": value for key, value in given.items()}).settings
    request = RunRequest(
        command=command,
        cwd=Path.cwd(),
        partition=settings.run.partition,
        account=settings.run.account,
        time_limit=settings.run.time_limit,
        gpus_per_node=settings.run.gpus_per_node,
        abort_on=tuple(filter(None, abort_on.split(","))),
        copies=tuple(copies.parse(text, Path.cwd(), settings.data.local_directory) for text in stage),
        **asked,
    )
    how = How(local, simulate, detach, dry_run, guard, max_wait_s, het_group)
    return start.run(request, how, settings)
