"""`piolet vet`: are these nodes ready to compute?"""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from piolet.cli.common import Format, format_option, print_json, print_table, progress

if TYPE_CHECKING:
    from piolet.core.nodeset import NodeSet
    from piolet.core.settings import Settings
    from piolet.vet import Protocol, Verdict

SOME_NOT_READY = 1
COULD_NOT_TELL = 3


@click.group()
def command() -> None:
    """Check that nodes are ready to compute."""


@command.command()
@click.option("--protocol", "name", default="quick", show_default=True, help="A protocol's name or file.")
@click.option("--nodes", "names", default="", help="Only these nodes of the allocation, such as node[1-4].")
@click.option("--local", is_flag=True, help="Vet this machine, without a step.")
@click.option("--timeout", "timeout_s", type=float, default=None, help="Seconds after which a silent node is unknown.")
@click.option(
    "--max-unready", type=click.IntRange(min=0), default=0, show_default=True, help="So many may be not ready."
)
@format_option
def run(name: str, names: str, timeout_s: float | None, max_unready: int, output: Format, *, local: bool) -> None:
    """Vet the nodes of this allocation, or this machine with --local.

    Exit status: 0 all are ready (but --max-unready), 1 some are not, 3 nothing was found wrong but some could not be
    judged.
    """
    from piolet import vet
    from piolet.core.stopping import Stopped, stoppable

    settings = _settings()
    protocol = vet.load_protocol(name, settings)
    nodes = None if local else _nodes(names)
    times: dict[str, Any] = {"timeout_s": timeout_s, "least_s": settings.vet.timeout_s}
    try:
        with stoppable(), progress(f"vetting {nodes or 'this machine'} with {protocol.name}"):
            verdict = vet.vet_nodes(nodes, protocol, **times) if nodes else vet.vet_here(protocol, **times)
    except Stopped as stop:
        raise click.exceptions.Exit(128 + stop.signal_number) from stop
    if protocol.left_out:
        click.echo(f"piolet: the budget left out {', '.join(protocol.left_out)}", err=True)
    if output is Format.JSON:
        print_json(_as_json(protocol, verdict))
    else:
        _print_verdict(verdict)
    raise click.exceptions.Exit(exit_status(verdict, max_unready))


def exit_status(verdict: Verdict, max_unready: int = 0) -> int:
    """Return 0 if all but `max_unready` are ready, 1 if any was found wrong, 3 if those that are not are unknown.

    Without any node that is ready it is never 0.
    """
    if not verdict.refused or (verdict.ready and len(verdict.refused) <= max_unready):
        return 0
    return COULD_NOT_TELL if len(verdict.unknown) == len(verdict.refused) else SOME_NOT_READY


@command.command()
@click.argument("file")
@format_option
def check(file: str, output: Format) -> None:
    """Read a protocol, say what is wrong with it or what it would run, and run nothing."""
    from piolet import vet

    protocol = vet.load_protocol(file, _settings())
    if output is Format.JSON:
        print_json(asdict(protocol))
        return
    rows = [
        (each.stage, each.name, each.type, _shown(each.parameters), f"{each.longest_s:g} s", each.severity)
        for each in protocol.checks
    ]
    print_table(
        ("stage", "check", "type", "parameters", "time-out", "severity"),
        rows,
        title=f"{protocol.name} ({protocol.origin})",
    )
    if protocol.left_out:
        click.echo(f"left out for the budget: {', '.join(protocol.left_out)}")


@command.command("list")
@format_option
def list_command(output: Format) -> None:
    """Print the protocols and the checks that there are."""
    from piolet.vet import catalogue

    protocols = dict(catalogue.protocols(_settings()))
    checks, broken = catalogue.all_checks()
    if output is Format.JSON:
        summaries = [{"type": each.name, "summary": each.summary, "source": each.source} for each in checks]
        print_json({"protocols": protocols, "checks": summaries, "broken": [asdict(each) for each in broken]})
        return
    print_table(("protocol", "file"), list(protocols.items()))
    click.echo()
    print_table(("check", "what it says", "source"), [(each.name, each.summary, each.source) for each in checks])
    for finding in broken:
        click.echo(f"piolet: {finding.subject} {finding.reason}", err=True)


@command.command()
@click.argument("check_type", metavar="CHECK")
@format_option
def explain(check_type: str, output: Format) -> None:
    """Print what a check does, its parameters with their defaults, and where its threshold comes from."""
    from piolet.vet import catalogue

    explained = catalogue.explain(check_type)
    if output is Format.JSON:
        print_json(asdict(explained))
        return
    click.echo(f"{explained.type}: {explained.summary}\nthreshold: {explained.source}\n\n{explained.text}\n")
    print_table(("parameter", "kind", "default"), explained.parameters)


@command.command()
@click.option("--node", default="", help="Only of this node.")
@click.option("--check", "name", default="", help="Only of the check of this name.")
@click.option("--failed", is_flag=True, help="Only what did not pass.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Results at most.")
@format_option
def history(node: str, name: str, limit: int, output: Format, *, failed: bool) -> None:
    """Print what vetting found in your jobs, the latest first."""
    from datetime import UTC, datetime

    from piolet.core.nouns import Status
    from piolet.logbook import layout
    from piolet.vet.history import past

    found = [
        each
        for each in past(layout.root(_settings()))
        if node in {"", each.result.node}
        and name in {"", each.result.check}
        and not (failed and each.result.status is Status.PASS)
    ]
    found = sorted(found, key=lambda each: each.result.time_ns, reverse=True)[:limit]
    if output is Format.JSON:
        print_json([{"job": each.job, "model": each.model, **asdict(each.result)} for each in found])
        return
    rows = [
        (f"{datetime.fromtimestamp(it.time_ns / 1e9, UTC):%F %R}", job, it.node, it.check, it.status, it.reason)
        for job, it in ((each.job, each.result) for each in found)
    ]
    print_table(("time", "job", "node", "check", "status", "reason"), rows)


@command.command(hidden=True)
@click.option("--protocol", "name", default="quick", show_default=True, help="A protocol's name or file.")
def node(name: str) -> None:
    """Run a protocol on this node and print the line of JSON with which it would answer, to look at a check by hand."""
    from piolet import vet
    from piolet.vet.node import print_answer

    print_answer(vet.load_protocol(name, _settings()))


def _settings() -> Settings:
    from piolet.core import config

    return config.load().settings


def _nodes(names: str) -> NodeSet:
    """Return the nodes to vet: those given, else all of the allocation."""
    from piolet.core.errors import UsageError
    from piolet.core.nodeset import NodeSet
    from piolet.tools.slurm.allocation import het_groups

    components = het_groups(os.environ).values()
    held = NodeSet(components or os.environ.get("SLURM_JOB_NODELIST", ""))
    if not held:
        raise UsageError(
            "this is not inside of a Slurm allocation",
            remedy="run it in a batch script or under salloc; for this machine alone give --local",
        )
    wanted = NodeSet(names) if names else held
    if not wanted <= held:
        raise UsageError(f"{wanted - held} is not in this allocation", where=f"--nodes; held: {held}")
    return wanted


def _as_json(protocol: Protocol, verdict: Verdict) -> dict[str, object]:
    return {
        "protocol": protocol.name,
        "left_out": list(protocol.left_out),
        "nodes": str(verdict.nodes),
        "ready": str(verdict.ready),
        "unknown": str(verdict.unknown),
        "refused": [refusal._asdict() for refusal in verdict.refused],
        "checks": [asdict(result) for result in verdict.results],
        "gpus": {node: [asdict(gpu) for gpu in gpus] for node, gpus in verdict.inventory.items()},
    }


def _print_verdict(verdict: Verdict) -> None:
    """Print each check that did not pass, then what to do, then the nodes that are ready."""
    from piolet.core.nouns import Status

    bad = [result for result in verdict.results if result.status is not Status.PASS]
    if bad:
        rows = [(each.node, each.check, each.status, each.reason, each.remedy) for each in bad]
        print_table(("node", "check", "status", "reason", "next"), rows)
        click.echo()
    click.echo(f"{len(verdict.ready)} of {len(verdict.nodes)} ready: {verdict.ready or 'none'}")


def _shown(parameters: object) -> str:
    return ", ".join(f"{name}={value}" for name, value in dict(parameters).items())  # type: ignore[call-overload] # a mapping
