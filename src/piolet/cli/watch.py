"""`piolet watch`: why a job is slow, what its data are worth, and SQL over its logbook."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from piolet.cli import watch_export, watch_lake
from piolet.cli.common import Format, format_option, print_json, print_rows, print_table, progress

if TYPE_CHECKING:
    from rich.text import Text

    from piolet.logbook.records import Diagnosis, Findings
    from piolet.watch.quality import DataQuality
    from piolet.watch.top import Now

LOW_SM, FAIR_SM = 0.25, 0.5
"""SM activity below which a GPU is red, or yellow: below 0.5 is ineffective (DCGM User Guide)."""

FINDINGS = 1
"""Exit status when something was found."""


@click.group()
def command() -> None:
    """Ask a job: JOB is a job id, `last`, or the directory of a logbook."""


@command.command()
@click.argument("job")
@click.option(
    "--log",
    "logs",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Output of the job or a kernel log to search as well; may be given often.",
)
@click.option("--save", is_flag=True, help="Also write findings.json into the logbook.")
@click.option("--brief", is_flag=True, help="Print a line for each finding, and nothing else.")
@format_option
def diagnose(job: str, logs: tuple[Path, ...], output: Format, *, save: bool, brief: bool) -> int:
    """Say why JOB is slow or failed: causes first, with evidence and the next step.

    Exit status: 0 nothing found, 1 findings.
    """
    from piolet.logbook.records import write_findings
    from piolet.watch import archive, notes
    from piolet.watch.diagnosis import diagnose as diagnosis

    with archive.find_configured(job) as book, progress("diagnosing"):
        others = archive.Archive(book.logbook.path.parent.parent).seen_by(book.grant.viewer)
        found = notes.cited(diagnosis.diagnose(book, logs, others), others, book.grant.job)
        start_ns = book.interval.start_ns if book.interval else 0
        if save:
            write_findings(book.logbook.findings, found)
    if output is Format.JSON:
        print_json(asdict(found))
    elif brief:
        for each in found.findings:
            click.echo(f"finding     {each.subject}: {each.title} ({each.confidence:.0%} confidence)")
    else:
        _print_findings(found, start_ns)
    return FINDINGS if found.findings else 0


@command.command()
@click.argument("before")
@click.argument("after")
@format_option
def compare(before: str, after: str, output: Format) -> None:
    """Say what changed between two jobs: set-up, nodes, code, environment, data, and the time of each phase.

    Whether one used its GPUs better, `piolet score compare` says.
    """
    from piolet.watch import archive
    from piolet.watch.compare import changes

    with archive.find_configured(before) as first, archive.find_configured(after) as second:
        found = changes(first, second)
    if output is Format.JSON:
        print_json([asdict(change) for change in found])
    elif found:
        rows = [(change.part, change.name, change.before, change.after) for change in found]
        print_table(("part", "what", before, after), rows)
    else:
        click.echo("nothing that is recorded differs")


@command.command()
@click.argument("job")
@click.option("--add", "text", help="What to note.")
@click.option("--rule", default="", help="The rule whose finding the note explains: diagnose cites it in other jobs.")
@format_option
def notes(job: str, text: str | None, rule: str, output: Format) -> None:
    """List what people noted about JOB, or note something."""
    import getpass
    import time

    from piolet.core import plugins
    from piolet.core.errors import UsageError
    from piolet.core.text import did_you_mean
    from piolet.watch import archive
    from piolet.watch import notes as noted

    known = [name.replace("_", "-") for name in plugins.names("piolet.rules")]
    if rule and rule not in known:
        raise UsageError(f"no rule {rule}", remedy=did_you_mean(rule, known))
    with archive.find_configured(job) as book:
        if text:
            noted.add(book.logbook, noted.Note(time.time_ns(), getpass.getuser(), text, rule))
        found = noted.read(book.logbook, book.grant.job.owner)
    if output is Format.JSON:
        print_json([asdict(note) for note in found])
    else:
        print_table(("user", "rule", "note"), [(note.user, note.rule, note.text) for note in found])


@command.command()
@click.argument("job")
@click.argument("query")
@click.option("--time", "time_s", type=click.FloatRange(0.1, 3600), default=10.0, show_default=True, help="Seconds.")
@click.option("--memory", type=click.IntRange(64, 65536), default=512, show_default=True, help="MiB.")
@click.option("--rows", type=click.IntRange(1, 1_000_000), default=10_000, show_default=True, help="Most rows.")
@format_option
def sql(job: str, query: str, *, time_s: float, memory: int, rows: int, output: Format) -> None:
    """Run one SELECT over the tables of JOB; nothing else can be read or changed.

    `piolet watch schema` tells which tables and columns there are, with unit and meaning.
    """
    from piolet.watch import archive, console, words

    with archive.find_configured(job) as book:
        answer = console.ask(book, query, console.Limits(time_s, memory << 20, rows))
    if output is Format.JSON:
        print_json(asdict(answer) | {"units": answer.units})
        return
    units = {name: "" if unit == "1" else f" [{unit}]" for name, unit in answer.units.items()}
    rows_shown = [["NULL" if cell is None else cell for cell in row] for row in answer.rows]
    print_rows([f"{name}{units.get(name, '')}" for name in answer.columns], rows_shown)
    if answer.truncated:
        click.echo(f"only the first {rows} rows are shown", err=True)
    if answer.coverage:
        click.echo(f"of the expected samples: {words.shares(answer.coverage)}", err=True)


@command.command()
@click.argument("job")
@format_option
def quality(job: str, output: Format) -> None:
    """Say what the data of JOB are worth: coverage, gaps, late nodes, drops, blanks, what was never collected."""
    from piolet.watch import archive

    with archive.find_configured(job) as book, progress("reading the logbook"):
        found = book.quality()
    if output is Format.JSON:
        print_json(_plain(found))
    else:
        _print_quality(found)


@command.command()
@click.argument("job")
@click.option("--every", "every_s", type=click.FloatRange(1, 300), default=5.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Show it once and end.")
def top(job: str, *, every_s: float, once: bool) -> None:
    """Show what JOB does now: SM activity of every GPU, the step, the findings; ends with the job or with Ctrl-C."""
    import time

    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False)
    if once:
        console.print(_screen(job, console.height)[0])
        return
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        ended = False
        while not ended:
            screen, ended = _screen(job, console.height)
            live.update(screen, refresh=True)
            if not ended:
                time.sleep(every_s)
    if console.is_terminal:
        console.print(screen)


def _screen(job: str, height: int) -> tuple[Text, bool]:
    """Return the screen of a job, and whether it has ended."""
    from rich.text import Text

    from piolet.logbook import records
    from piolet.watch import archive
    from piolet.watch import top as now

    with archive.find_configured(job) as book:
        state = records.state(book.job, book.outcome())
        found = now.now(book)
        name = f"job {book.job.job_id} {book.job.name}".rstrip()
    text = Text(f"{name}  {state}\n")
    if found is None:
        text.append("nothing was recorded yet\n")
        return text, state != records.RUNNING
    text.append(_headline(found) + "\n\n")
    room = max(4, height - 8 - 2 * min(len(found.findings), 4))
    for node in found.nodes[:room]:
        text.append(f"{node.node:16} ")
        for value in node.sm:
            text.append(f"{value:4.0%} ".rjust(6), style=_colour(value))
        text.append("\n")
    if len(found.nodes) > room:
        text.append(f"and {len(found.nodes) - room} nodes that do more\n", style="dim")
    for number, each in enumerate(found.findings[:4], start=1):
        text.append(f"\n{number}. {each.subject}: {each.title}", style="bold")
        text.append(f"\n   {each.reason}")
    return text, state != records.RUNNING


def _headline(found: Now) -> str:
    step = "" if found.step is None else f"  step {found.step}"
    rate = "" if not found.steps_per_s else f", {found.steps_per_s:.3g} a second"
    covered = "" if found.coverage_ratio is None else f"  {found.coverage_ratio:.0%} of the samples"
    length = _clock(round(found.running_s * 1e9), 0)
    return f"{length} running{step}{rate}{covered}\nSM active in the last 30 s, lowest first:"


def _colour(value: float) -> str:
    return "red" if value < LOW_SM else "yellow" if value < FAIR_SM else "green"


@command.command()
@click.argument("job")
@click.option("--file", "path", type=click.Path(dir_okay=False, path_type=Path), help="Default: piolet-JOBID.py here.")
@click.option("--no-open", is_flag=True, help="Only write it; a file that is there stays as it is.")
def notebook(job: str, path: Path | None, *, no_open: bool) -> None:
    """Open a marimo notebook on JOB with worked examples: stragglers, step times, energy.

    A notebook that is there already is opened as it is. It runs on this machine, as you.
    """
    import os

    from piolet.watch import archive
    from piolet.watch import notebook as worked

    worked.check_installed()
    with archive.find_configured(job) as book:
        path = path or Path(f"piolet-{book.job.job_id}.py")
        if no_open or not path.exists():
            worked.write(path, book.logbook)
    if no_open:
        click.echo(path)
        return
    argv = worked.editor(path)
    os.execv(argv[0], argv)  # noqa: S606 - becomes the editor, no shell


@command.command()
@click.argument("family", required=False)
@format_option
def schema(family: str | None, output: Format) -> None:
    """List the tables of a logbook, or the columns of one: type, unit, meaning."""
    from piolet.logbook.schema import FAMILIES, VERSION
    from piolet.watch.tables import family_rows

    found = {name: family_rows(name) for name in ([family] if family else FAMILIES)}
    if output is Format.JSON:
        print_json({"version": VERSION, "families": found})
    elif family:
        print_table(("column", "type", "unit", "meaning"), found[family])
    else:
        print_table(("table", "columns"), [(name, ", ".join(row[0] for row in rows)) for name, rows in found.items()])


def _print_findings(found: Findings, start_ns: int) -> None:
    for number, each in enumerate(found.findings, start=1):
        click.echo(_shown(number, each, start_ns))
    if not found.findings:
        click.echo("nothing found")
    if found.unanswered:
        click.echo("\nnot enough data:")
        for missing, rules in _by_missing(found).items():
            click.echo(f"  {missing}: {', '.join(rules)}")


def _by_missing(found: Findings) -> dict[str, list[str]]:
    """Return the rules that could not judge, by what they lacked."""
    rules: dict[str, list[str]] = {}
    for each in found.unanswered:
        rules.setdefault(each.missing, []).append(each.rule)
    return rules


def _shown(number: int, each: Diagnosis, start_ns: int) -> str:
    from piolet.watch.words import fact

    lines = [
        f"{number}. {each.subject}: {each.title} ({each.severity.value}, confidence {each.confidence:.0%})",
        f"   {each.reason}",
        f"   when      {_clock(each.from_ns, start_ns)} to {_clock(each.to_ns, start_ns)} after the start",
        *(f"   evidence  {fact(told)}" for told in each.evidence),
        *(f"   explains  {effect}" for effect in each.effects),
        *(f"   note      {note}" for note in each.notes),
        f"   unless    {each.refuted_by}",
        f"   next      {each.next_step}",
    ]
    return "\n".join(lines)


def _clock(time_ns: int, start_ns: int) -> str:
    minutes, seconds = divmod(max(0, time_ns - start_ns) // 1_000_000_000, 60)
    return f"{minutes}:{seconds:02d}"


def _plain(found: DataQuality) -> dict[str, object]:
    """Return the quality with keys that JSON can have."""
    return asdict(found) | {
        "blanks": {".".join(name): count for name, count in found.blanks.items()},
        "resets": {" ".join(name): count for name, count in found.resets.items()},
        "restarts": dict(found.restarts),
    }


def _print_quality(found: DataQuality) -> None:
    from piolet.watch import words

    print_table(("family", "coverage"), [(name, f"{share:.1%}") for name, share in found.shares.items()])
    rows = [
        (
            each.family,
            f"{each.node}:{each.device}".rstrip(":"),
            f"{each.coverage_ratio:.1%}",
            f"{each.late_s:.0f} s",
            f"{each.early_s:.0f} s",
            len(each.gaps),
        )
        for each in found.incomplete[:20]
    ]
    if rows:
        print_table(("family", "incomplete", "coverage", "late", "early", "gaps"), rows)
    for trouble in words.troubles(found):
        click.echo(trouble)
    click.echo(f"never collected: {words.never(found)}")


for other in (*watch_export.COMMANDS, *watch_lake.COMMANDS):
    command.add_command(other)
