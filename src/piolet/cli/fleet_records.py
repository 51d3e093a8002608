"""`piolet fleet ledger` and `rules`: the record of what happened, and what decides."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from piolet.cli.common import Format, format_option, print_json, print_table
from piolet.core import config
from piolet.core.text import plural

if TYPE_CHECKING:
    from piolet.fleet.policy import Policy


@click.group()
def ledger() -> None:
    """The record of what was learned, decided and done."""


@ledger.command("verify")
def ledger_verify() -> None:
    """Check the chain of hashes over every entry."""
    from piolet.fleet import center

    count, last = center.verify_ledger(database())
    click.echo(f"{count} entries, unchanged; the last hash is {last}")


@ledger.command("print")
def ledger_print() -> None:
    """Print every entry in words."""
    from piolet.fleet import center, views

    for entry in center.entries(database()):
        click.echo(f"#{entry.seq} {stamp(entry.time_ns)} {views.words(entry)}")


@click.group()
def rules() -> None:
    """The rules, as data."""


@rules.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@format_option
def rules_check(file: Path | None, output: Format) -> None:
    """Read a policy FILE (default: the one in force) and print its rules, or say what is wrong with it."""
    from piolet.fleet import policy

    found = policy.load(file) if file else site_policy()
    if output is Format.JSON:
        print_json(asdict(found))
        return
    rows = [
        (
            one.name,
            f"{one.kind}: {' '.join(one.code)}",
            f"{one.count} in {one.window_h:g} h",
            one.to,
            one.mode,
            one.source,
        )
        for one in found.rule
    ]
    print_table(("rule", "evidence", "when", "to", "mode", "source"), rows)


@rules.command("test")
@click.argument("file", required=False, type=click.Path(path_type=Path))
def rules_test(file: Path | None) -> int:
    """Hold the rules of a policy FILE (default: the one in force) against its tests. Exit status 1 if one fails."""
    from piolet.fleet import policy, trials

    answers = trials.tried(policy.load(file) if file else site_policy())
    for one in answers:
        if not one.right:
            click.echo(f"{one.trial.name}: {_led(one.to, one.fires)}, not {_led(one.trial.to, one.trial.fires)}")
    wrong = sum(not one.right for one in answers)
    click.echo(f"{plural(len(answers), 'test')}, {wrong or 'none'} failed")
    return 1 if wrong else 0


@rules.command("replay")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--nodes", "size", default=0, help="Nodes of the cluster, for the breaker.")
def rules_replay(file: Path, size: int) -> None:
    """Show what the policy FILE would have made of the evidence of the ledger, beside what was made of it."""
    from piolet.fleet import center, policy, views

    changed = policy.load(file)
    before, after = center.look(database()), center.replay(database(), changed, size)
    was = {row.rule: row for row in views.rules(before)}
    would = {row.rule: row for row in views.rules(after)}
    none = views.RuleRow("", 0, 0, 0)
    pairs = [(name, was.get(name, none), would.get(name, none)) for name in sorted(was.keys() | would.keys())]
    shown = [(name, old.firings, old.nodes, new.firings, new.nodes) for name, old, new in pairs]
    print_table(("rule", "fired", "on nodes", "would fire", "on nodes"), shown)
    wanted = sorted(node.name for node in after.nodes.values() if node.wanted)
    click.echo(f"would ask to drain: {', '.join(wanted) or 'none'}")


def _led(to: str, fires: Sequence[str]) -> str:
    return f"{to} by {', '.join(fires) or 'no rule'}"


def database() -> str:
    """Return where the fleet's ledger is."""
    return config.load().settings.fleet.database


def site_policy() -> Policy:
    """Return the policy in force."""
    from piolet.fleet import policy

    return policy.load(config.load().settings.fleet.policy)


def stamp(time_ns: int) -> str:
    """Return a time for people."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if time_ns else "-"


@click.command()
@click.option("--last", default=20, show_default=True, type=click.IntRange(1), help="Lines.")
@format_option
def lemons(last: int, output: Format) -> None:
    """Rank nodes by how often their jobs fail for their sake, in the last 28 days, with how sure that is."""
    from piolet.fleet import blame, center

    fleet = center.look(database())
    found = blame.ranking(fleet.observed, max(time.time_ns(), fleet.time_ns))[:last]
    if output is Format.JSON:
        print_json([asdict(one) for one in found])
        return
    shown = [
        (
            one.node,
            f"{one.lemon:.2f}",
            f"{one.failures:.1f}",
            f"{one.days:.1f}",
            f"{one.rate:.1f}",
            f"{one.low:.1f} - {one.high:.1f}",
        )
        for one in found
    ]
    print_table(("node", "lemon", "failures", "days of jobs", "in 1000 days", "90 % interval"), shown)


@click.command()
@format_option
def precision(output: Format) -> None:
    """Tell how often rules and checks were right, from what happened to the nodes within 7 days."""
    from piolet.fleet import center
    from piolet.fleet import precision as judged

    found = judged.rows(center.entries(database()), time.time_ns())
    if output is Format.JSON:
        print_json([asdict(one) for one in found])
        return
    shown = [
        (
            f"{one.what} {one.name}",
            one.warned,
            one.right,
            one.wrong,
            "-" if one.precision is None else f"{one.precision:.2f} ({one.low:.2f} - {one.high:.2f})",
            "-" if one.recall is None else f"{one.recall:.2f}",
        )
        for one in found
    ]
    print_table(("of", "warned", "right", "wrong", "precision (90 %)", "recall"), shown)


COMMANDS = (ledger, rules, lemons, precision)
