"""The score for a terminal: a few lines for the end of a run, and the whole for `piolet score`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from piolet.core.text import plural
from piolet.logbook.layout import Logbook
from piolet.logbook.reader import read, rereading
from piolet.logbook.records import read_job
from piolet.score import advice, words
from piolet.score.compare import Comparison, Ratio
from piolet.score.history import History
from piolet.score.job import score_job
from piolet.score.model import GpuScore, JobScore
from piolet.score.overview import NodeStory, Overview, Role
from piolet.score.stages import summed

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

MOST_GPUS = 64
"""Rows of the GPU table in a terminal; more are in `--format json`."""

_BAR = 20


@rereading
def summary_lines(logbook: Logbook) -> list[str]:
    """Score `logbook` and return it in two to four plain lines, for the end of a run."""
    with read(logbook) as reader:
        return score_lines(score_job(reader, read_job(logbook.job)))


def score_lines(score: JobScore) -> list[str]:
    """Return the score in two to four plain lines."""
    lines = [f"saturation  {words.percent(score.score)}  {_tail(score)}".rstrip()]
    if score.factors:
        parts = [f"{name} {words.percent(getattr(score.factors, name))}" for name, _, _ in words.FACTORS]
        lines.append(f"factors     {' x '.join(parts)}")
    lines.append(f"bottleneck  {score.label.bottleneck} ({score.label.evidence})")
    if score.coverage_ratio is not None:
        lines.append(f"coverage    {words.percent(score.coverage_ratio)} of {plural(len(score.gpus), 'GPU')}")
    return lines


def _tail(score: JobScore) -> str:
    return words.steady(score) or ("" if score.score is None else "of what the hardware can attain")


def comparison_lines(found: Comparison, limit: float | None) -> list[str]:
    """Return a comparison in plain lines, one a quantity, and the verdict if there is a limit."""
    both = (found.before, found.after)
    rows = {
        "": [score.job_id for score in both],
        "score": [words.percent(score.score) for score in both],
        "steady": [words.percent(score.steady) for score in both],
        **{name: [words.percent(getattr(score, name)) for score in both] for name in ("compute", "memory", "network")},
        **{name: [words.percent(getattr(score.factors, name)) for score in both] for name, _, _ in words.FACTORS},
        "energy": [words.energy(score.energy_j) for score in both],
        "bottleneck": [str(score.label.bottleneck) for score in both],
    }
    lines = [f"{name:11} {first:>24} {second:>24}" for name, (first, second) in rows.items()]
    return [*lines, "", _ratio_line(found.ratio), *_verdict_lines(found.ratio, limit)]


def _ratio_line(ratio: Ratio) -> str:
    if ratio.low is None or ratio.high is None:
        return f"ratio       {ratio.value:.3f} in steady state; the jobs are too short for a confidence interval"
    interval = f"95 % confidence {ratio.low:.3f} to {ratio.high:.3f}"
    return f"ratio       {ratio.value:.3f} in steady state, {interval}, {ratio.blocks} pairs of blocks"


def _verdict_lines(ratio: Ratio, limit: float | None) -> list[str]:
    return [] if limit is None else [f"verdict     {ratio.verdict(limit)}: at least {limit:g} was asked for"]


def history_rows(found: History) -> list[tuple[str, ...]]:
    """Return one row of cells a job."""
    return [
        (
            past.job.job_id,
            past.job.name,
            past.job.user,
            f"{past.gpu_hours:.1f}",
            words.percent(past.score.score),
            words.percent(past.score.steady),
            str(past.score.label.bottleneck),
        )
        for past in found.jobs
    ]


def history_summary(found: History) -> str:
    """Return what holds for all jobs together, in one or two lines."""
    scored = found.scored_gpu_hours
    line = (
        f"{plural(len(found.jobs), 'job')}, {found.gpu_hours:.1f} GPU-hours, {scored:.1f} of them scored: "
        f"saturation {words.percent(found.score)} by GPU-hours, energy {words.energy(found.energy_j)}"
    )
    unreadable = f"\nleft out, job.json cannot be read: {', '.join(map(str, found.unreadable))}"
    return line + (unreadable if found.unreadable else "")


def render(view: Overview) -> Group:
    """Return everything that `piolet score` prints."""
    from rich.console import Group  # noqa: PLC0415 - slow to import, used when something is printed

    return Group(*_parts(view))


def _parts(view: Overview) -> Iterator[RenderableType]:
    from rich.text import Text  # noqa: PLC0415 - as above

    score = view.score
    yield from _head(view)
    yield Text("")
    if score.factors:
        yield _factors(score)
        yield Text("")
    yield Text.assemble(("Bottleneck  ", "bold"), f"{score.label.bottleneck} ({score.label.confidence} confidence)")
    yield Text(f"            {score.label.meaning}")
    yield Text(f"Evidence    {score.label.evidence}\n")
    yield from _advice(view)
    if len(score.phases) > 1:
        yield _phases(score)
        yield Text("")
    if score.laggards:
        yield Text(f"Behind the others: {', '.join(score.laggards)}\n", "yellow")
    if score.gpus:
        yield _gpus(score)
        yield Text("")
    yield from (Text(line) for line in resource_lines(view))
    yield Text("")
    yield _nodes(view.nodes)
    yield Text("")
    yield from _quality(view)


def _head(view: Overview) -> Iterator[RenderableType]:
    from rich.text import Text  # noqa: PLC0415 - as above

    score = view.score
    yield Text.assemble((f"Job {view.job.job_id}", "bold"), f"  {' '.join(view.job.command)}")
    if view.job.simulated:
        yield Text(
            f"Simulated: {', '.join(view.job.simulated)}. Numbers show how it works, not how fast it is.", "yellow"
        )
    yield Text.assemble("\n", (f"{words.percent(score.score)} saturation", "bold cyan"), f"  {words.headline(score)}")
    if words.steady(score):
        yield Text(f"{words.steady(score)}.")
    if score.ofu is not None:
        yield Text(
            f"OFU {words.percent(score.ofu)}: tensor pipes active x clock / highest clock; compare it with the MFU."
        )
    if view.step_time:
        yield Text(f"Step time {words.step_time(view.step_time)} over {view.step_time.count} steps.")
    if score.period:
        yield Text(f"The activity repeats {words.period(score.period)}.")


def _advice(view: Overview) -> Iterator[RenderableType]:
    from rich.text import Text  # noqa: PLC0415 - as above

    if view.advice:
        yield Text("Things to try", "bold")
    for number, each in enumerate(view.advice, start=1):
        yield Text(f"{number}. {each.action}")
        yield Text(f"   {each.why} ({advice.gain(each)})", "dim")
    yield Text("")


def resource_lines(view: Overview) -> Iterator[str]:
    """Yield what is known of work, file systems, network and energy, a line each."""
    yield from (f"{name}: {value}" for name, value in words.work_facts(view.work))
    if view.resources:
        yield from (f"{each.kind} {each.name}: {words.files_line(each)}" for each in view.resources.files)
        yield from (f"network {each.kind}: {words.network_line(each)}" for each in view.resources.network)
        yield from (f"{name}: {value}" for name, value in words.energy_facts(view.resources.energy))


def _table(*columns: str) -> Table:
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column.endswith((" ", "%")) else "left", overflow="fold")
    return table


def _factors(score: JobScore) -> Table:
    table = _table("factor", "%", "", "what it is")
    for name, _, meaning in words.FACTORS:
        ratio = getattr(score.factors, name) if score.factors else None
        table.add_row(name, words.percent(ratio), _bar(ratio), meaning)
    table.add_row("= score", words.percent(score.score), _bar(score.score), "the product of the four", style="bold")
    return table


def _bar(ratio: float | None) -> str:
    filled = round((ratio or 0.0) * _BAR)
    return "\N{BLACK RECTANGLE}" * filled + "\N{MIDDLE DOT}" * (_BAR - filled)


def _phases(score: JobScore) -> Table:
    table = _table("phase", "time", "of the job %", "saturation %", "", "bottleneck", "evidence")
    for each in summed(score.phases):
        times, share, level = words.phase_times(each), words.percent(each.share), words.percent(each.score)
        evidence = each.evidence or each.label.evidence
        table.add_row(each.name, times, share, level, _bar(each.score), str(each.label.bottleneck), evidence)
    return table


def _gpus(score: JobScore) -> Table:
    table = _table(
        "GPU", "score %", "", "compute %", "memory %", "network %", "busy %", "power ", "observed %", "bottleneck"
    )
    for gpu in score.gpus[:MOST_GPUS]:
        table.add_row(*_gpu(gpu))
    if len(score.gpus) > MOST_GPUS:
        table.caption = f"{len(score.gpus) - MOST_GPUS} more in --format json"
    return table


def _gpu(gpu: GpuScore) -> tuple[str, ...]:
    return (
        f"{gpu.node}:{gpu.index}",
        words.percent(gpu.score),
        _bar(gpu.score),
        words.percent(gpu.compute),
        words.percent(gpu.memory),
        words.percent(gpu.network),
        words.percent(gpu.busy),
        "\N{EN DASH}" if gpu.power_w is None else f"{gpu.power_w:.0f} W",
        words.percent(gpu.coverage_ratio),
        str(gpu.label.bottleneck) if gpu.label else "",
    )


def _nodes(nodes: tuple[NodeStory, ...]) -> Table:
    table = _table("node", "role", "checks passed ", "what happened")
    for story in nodes:
        style = "red" if story.role is Role.REFUSED else ""
        table.add_row(story.node, str(story.role), str(story.passed), what_happened(story), style=style)
    return table


def what_happened(story: NodeStory) -> str:
    """Return the sentence on a node that was refused or took another's place; empty for the others."""
    if story.took_place_of:
        return f"took the place of {story.took_place_of}"
    return story.reason or "; ".join(story.not_passed)


def _quality(view: Overview) -> Iterator[RenderableType]:
    from rich.text import Text  # noqa: PLC0415 - as above

    table = _table("data", "family", "covered %", "missing ", "agent restarts ")
    restarts = dict(view.quality.agent_restarts)
    for each in view.quality.coverage:
        count = str(restarts.get(each.node, 0)) if each.family == "gpu" else ""
        table.add_row(each.node, each.family, words.percent(each.coverage_ratio), words.duration(each.missing_s), count)
    if view.quality.coverage:
        yield table
    yield from (Text(f"left out, for it cannot be read: {path.name}", "yellow") for path in view.quality.torn)
    yield from (Text(f"{node}: {source} not collected: {why}") for node, source, why in view.quality.unavailable)
    if view.quality.not_applicable:
        yield Text(f"not applicable here: {', '.join(view.quality.not_applicable)}", "dim")
    if view.never_collected:
        yield Text(f"never collected: {', '.join(view.never_collected)}", "dim")
    yield from (Text(note, "yellow") for note in view.score.notes)
