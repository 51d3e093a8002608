"""`piolet fleet`: the operators' centre."""

from __future__ import annotations

import getpass
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from piolet.cli import fleet_records, fleet_service
from piolet.cli.common import Format, format_option, print_json, print_table
from piolet.cli.fleet_records import database, site_policy, stamp
from piolet.core import config
from piolet.core.run import SystemRunner
from piolet.core.text import plural

if TYPE_CHECKING:
    from piolet.fleet.ledger import Entry
    from piolet.fleet.planning import Plan

reason_option = click.option("--reason", default="", help="Why, for the ledger.")


@click.group()
def command() -> None:
    """Keep repeat-offender nodes out, every action explained and every limit kept."""


@command.command()
@click.option("--no-slurm", is_flag=True, help="Do not ask Slurm how jobs ended.")
@click.option(
    "--accounts", "hours", default=0, type=click.IntRange(0, 9000), help="Ask sacct too, for so many hours back."
)
@click.argument("logbooks", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
def gather(logbooks: tuple[Path, ...], *, no_slurm: bool, hours: int) -> int:
    """Gather evidence from LOGBOOKS (one, or a root of many) and from Slurm, and decide what follows.

    What was gathered before counts once. Exit status 1 if a logbook could not be read.
    """
    from piolet.fleet import center, gathering

    runner = SystemRunner()
    found = [one for root in logbooks for one in gathering.logbooks(root)]
    evidence, unreadable = gathering.from_logbooks(found)
    cluster = config.load().settings.cluster
    evidence += gathering.from_accounts(runner, cluster, hours * 3600) if hours else []
    with center.opened(database(), site_policy()) as opened:
        seen = [] if no_slurm else gathering.cluster_now(runner)
        evidence += [] if no_slurm else gathering.from_slurm(runner, cluster, opened.fleet.vet_jobs, seen)
        written = opened.gather(evidence, len(seen))
        if seen:
            opened.settle(seen)
    _print_new(written)
    for finding in unreadable:
        click.echo(f"piolet: {finding.subject} is left out: {finding.reason}", err=True)
    return 1 if unreadable else 0


@command.command()
@format_option
def plan(output: Format) -> None:
    """Print what `apply` would do now, and what is withheld and why. Changes nothing."""
    from piolet.fleet import center, gathering, planning

    fleet, seen = center.look(database()), gathering.cluster_now(SystemRunner())
    found = planning.plan(fleet, seen, site_policy(), max(time.time_ns(), fleet.time_ns))
    if output is Format.JSON:
        print_json(asdict(found))
    else:
        _print_plan(found)


@command.command()
@click.option("--dry-run", is_flag=True, help="Print the plan, change nothing.")
@click.pass_context
def apply(context: click.Context, *, dry_run: bool) -> None:
    """Carry out the plan: drain and resume nodes in Slurm."""
    from piolet.fleet import center, gathering

    if dry_run:
        context.invoke(plan, output=Format.TABLE)
        return
    runner = SystemRunner()
    with center.opened(database(), site_policy()) as opened:
        hands = opened.hands(runner)
        for step in opened.finish(hands):
            click.echo(f"finished what had been begun: {step.verb} {step.node}")
        seen = gathering.cluster_now(runner)
        opened.settle(seen)
        chosen = opened.plan(seen)
        _print_plan(chosen)
        opened.apply(chosen, hands)


@command.command()
@format_option
def status(output: Format) -> int:
    """Print the nodes that are not simply in, and open breakers. Exit status 1 if there are any."""
    from piolet.fleet import center, views

    fleet = center.look(database())
    rows, breakers = views.nodes(fleet, site_policy()), views.breakers(fleet)
    if output is Format.JSON:
        print_json({"nodes": [asdict(row) for row in rows], "breakers": [asdict(one) for one in breakers]})
    elif rows:
        shown = [(row.node, row.state, stamp(row.since_ns), row.reason, row.waits) for row in rows]
        print_table(("node", "state", "since", "reason", "next"), shown)
    for one in breakers if output is Format.TABLE else ():
        click.echo(f"breaker open: {one.reason}; `piolet fleet close-breaker {one.group}` once the check is right")
    if output is Format.TABLE and not (rows or breakers):
        click.echo("Every node is in.")
    return 1 if rows or breakers else 0


@command.command()
@click.argument("node")
@format_option
def explain(node: str, output: Format) -> None:
    """Tell why NODE stands where it does, on what evidence, and what comes next."""
    from piolet.fleet import center, views

    told = views.explain(center.look(database()), node, site_policy())
    if output is Format.JSON:
        print_json(asdict(told))
        return
    since = f" since {stamp(told.since_ns)}" if told.since_ns else ""
    click.echo(f"{told.node} is {told.state.value}{since}: {told.reason}")
    if told.next:
        click.echo(f"next: {told.next}")
    for title, lines in (
        ("evidence that counts", [f"{stamp(at_ns)} {what}" for at_ns, what in told.evidence]),
        ("history", [f"#{one.seq} {stamp(one.time_ns)} {one.what}" for one in told.history]),
    ):
        if lines:
            click.echo(f"\n{title}:\n" + "\n".join(f"  {line}" for line in lines))


@command.command()
@format_option
def nodes(output: Format) -> None:
    """List every node that something is known of, those out of service first."""
    from piolet.fleet import center, views
    from piolet.fleet.ledger import State

    rows = views.nodes(center.look(database()), site_policy(), tuple(State))
    if output is Format.JSON:
        print_json([asdict(row) for row in rows])
        return
    shown = [(row.node, row.state, stamp(row.since_ns), row.failures, row.reason, row.waits) for row in rows]
    print_table(("node", "state", "since", "failures", "reason", "next"), shown)


@command.command()
@click.argument("node")
@click.option("--last", default=20, show_default=True, type=click.IntRange(1), help="Lines of each part.")
@format_option
def show(node: str, last: int, output: Format) -> None:
    """Show the history of NODE: evidence, decisions, actions and how its jobs ended."""
    from piolet.fleet import center, history
    from piolet.fleet.state import Fleet, fold

    entries = center.entries(database())
    told = history.of_node(fold(Fleet(), entries), entries, node)
    parts = {name: getattr(told, name)[-last:] for name in ("evidence", "decisions", "actions", "jobs")}
    if output is Format.JSON:
        print_json(asdict(replace(told, **parts)))
        return
    click.echo(f"{told.node} is {told.state}" + (f", with {' '.join(told.gpus)}" if told.gpus else ""))
    for name, events in parts.items():
        lines = [f"  #{one.seq} {stamp(one.time_ns)} {one.what}" for one in events]
        click.echo("\n".join(["", f"{name}:", *(lines or ["  none"])]))


@command.command()
@click.option("--apart", default=10.0, show_default=True, type=click.FloatRange(0), help="Minutes that end one.")
@format_option
def incidents(apart: float, output: Format) -> None:
    """List failures of one cause that followed one another, on whichever nodes, the newest first."""
    from piolet.core.nodeset import NodeSet
    from piolet.fleet import center, history

    found = history.incidents(center.entries(database()), round(apart * 60e9))
    if output is Format.JSON:
        print_json([asdict(one) for one in found])
        return
    shown = [
        (
            one.cause,
            stamp(one.began_ns),
            stamp(one.ended_ns),
            one.failures,
            NodeSet(one.nodes),
            len(one.jobs),
            " ".join(one.rules),
        )
        for one in found
    ]
    print_table(("cause", "began", "ended", "failures", "nodes", "jobs", "rules that fired"), shown)


@command.command()
@click.option("--valid", default=30.0, show_default=True, type=click.FloatRange(0), help="Minutes until they expire.")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def verdicts(directory: Path, valid: float) -> None:
    """Write into DIRECTORY a verdict on each node that is not simply in, and what Slurm runs on nodes to read it."""
    from piolet.fleet import center, gathering
    from piolet.fleet import verdicts as judged

    seen = gathering.cluster_now(SystemRunner())
    lines = judged.of(center.look(database()), seen, round(time.time() + valid * 60))
    judged.write(directory, lines)
    click.echo(f"verdicts on {len(lines)} of {plural(len(seen), 'node')} in {directory}")


@command.command()
@click.argument("node")
@reason_option
def approve(node: str, reason: str) -> None:
    """Approve the drain of NODE that a rule advises."""
    _instruct("approve", node, reason)


@command.command()
@click.argument("node")
@click.option(
    "--hours", default=24.0, show_default=True, type=click.FloatRange(0, 8784, min_open=True), help="For how long."
)
@reason_option
def hold(node: str, hours: float, reason: str) -> None:
    """Keep the fleet from draining NODE."""
    _instruct("hold", node, reason, hours)


@command.command()
@click.argument("node")
@reason_option
def release(node: str, reason: str) -> None:
    """End the hold of NODE."""
    _instruct("release", node, reason)


@command.command("return")
@click.argument("node")
@reason_option
def return_command(node: str, reason: str) -> None:
    """Say that NODE is healed: `apply` resumes it, on probation."""
    _instruct("return", node, reason)


@command.command()
@click.argument("node")
@reason_option
def vet(node: str, reason: str) -> None:
    """Let `apply` vet NODE, which is out, with a job of its own; if it passes it resumes, on probation."""
    _instruct("vet", node, reason)


@command.command("close-breaker")
@click.argument("group")
@reason_option
def close_breaker(group: str, reason: str) -> None:
    """Say that the check of GROUP (such as check:gpu_ecc) is right again."""
    _instruct("close-breaker", group, reason)


def _instruct(order: str, target: str, reason: str, hours: float | None = None) -> None:
    from piolet.fleet import orders
    from piolet.fleet.ledger import Order

    said = orders.instruction(Order(order), target, getpass.getuser(), reason, hours)
    orders.give(config.load().settings.fleet, SystemRunner(), said)
    click.echo(f"{order} {target}: written")


for other_command in (*fleet_service.COMMANDS, *fleet_records.COMMANDS):
    command.add_command(other_command)


def _print_new(written: Sequence[Entry]) -> None:
    from piolet.fleet import views
    from piolet.fleet.evidence import Evidence

    decided = [entry for entry in written if not isinstance(entry.content, Evidence)]
    for entry in decided:
        click.echo(views.words(entry))
    click.echo(f"{len(written) - len(decided)} new pieces of evidence")


def _print_plan(found: Plan) -> None:
    for action in found.actions:
        click.echo(f"{action.verb} {action.node}: {action.reason}")
    for one in found.withheld:
        click.echo(f"withheld: {one.verb} {one.node}: {one.why}")
    if not (found.actions or found.withheld):
        click.echo("Nothing to do.")
