"""`piolet record`: record a program, or be the agent of a node."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click

from piolet.core import config
from piolet.core.errors import UsageError
from piolet.core.settings import Settings
from piolet.record.agent import run_agent
from piolet.record.rates import intervals
from piolet.record.spec import AgentSpec

_WAYS = {(True, False): "an agent", (False, True): "--site", (False, False): "--attach", (True, True): "an agent"}


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--logbook", type=click.Path(file_okay=False, path_type=Path), help="Directory to record into.")
@click.option("--interval", type=float, help="Seconds between samples.  [default: the setting record.interval_s]")
@click.option(
    "--rate",
    metavar="FAMILY=HZ,...",
    help="Samples a second of families, such as gpu=10,proc=1.  [default: record.rates]",
)
@click.option("--node", default="", help="Name of this node in the logbook.  [default: Slurm's, else the host's]")
@click.option("--agent", is_flag=True, help="Record this node in the foreground until SIGTERM; needs --logbook.")
@click.option("--attach", metavar="JOB", default="", help="Record this running Slurm job from outside, until it ends.")
@click.option("--site", is_flag=True, help="Be the service of this node that records every job on it; as root.")
@click.option("--standby", is_flag=True, help="With --agent: wait to take over if this node has an agent already.")
@click.option("--whole-job", is_flag=True, help="With --agent: look at every process of the Slurm job.")
@click.argument("program", nargs=-1, type=click.UNPROCESSED)
def command(
    logbook: Path | None,
    interval: float | None,
    node: str,
    attach: str,
    program: tuple[str, ...],
    *,
    rate: str | None,
    agent: bool,
    site: bool,
    standby: bool,
    whole_job: bool,
) -> None:
    """Record what the GPUs and the host do while PROGRAM runs.

    PROGRAM keeps its process id, signals, input, output and exit status. Put `--` before it:

        piolet record -- python train.py --lr 0.1

    A job that runs already is recorded from any node that can reach Slurm:

        piolet record --attach 4711
    """
    settings = config.load({"record.interval_s": interval, "record.rates": rate and rate.split(",")}).settings
    if agent + site + bool(attach) + bool(program) != 1:
        raise UsageError(
            f"{_WAYS[agent, site]} takes no program" if agent or site or attach else "there is no program to record",
            remedy="write `piolet record -- PROGRAM`, `piolet record --attach JOB`, or `... --agent --logbook DIR`",
        )
    if program:
        from piolet.record.program import record_program

        record_program(program, settings, logbook=logbook, node=node)
    if site:
        from piolet.record.site import serve

        serve(settings, _node(node))
        return
    if attach:
        from piolet.record.attach import attach as attach_to

        click.echo(attach_to(attach, settings, logbook=logbook).path)
        return
    _run_agent(logbook, node, settings, standby=standby, whole_job=whole_job)


def _node(chosen: str) -> str:
    return chosen or os.environ.get("SLURMD_NODENAME") or socket.gethostname().partition(".")[0]


def _run_agent(logbook: Path | None, node: str, settings: Settings, *, standby: bool, whole_job: bool) -> None:
    if logbook is None:
        raise UsageError("an agent needs to know where to record", remedy="add --logbook DIR")
    record = settings.record
    name = _node(node)
    run_agent(
        AgentSpec(
            logbook=logbook.absolute(),
            node=name,
            interval_s=record.interval_s,
            flush_s=record.flush_s,
            kernel_log=record.kernel_log,
            dcgm=record.dcgm,
            intervals_s=intervals(record.rates),
            exporter=record.metrics,
            follow=(os.pidfd_open(os.getppid()),),  # so that none outlives the step that it was started in
            standby=standby,
            whole_job=whole_job,
        )
    )
