"""Diagnosing a job: every rule that has its data judges, the causal pass concludes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from piolet.core import plugins
from piolet.core.nouns import Interval
from piolet.logbook.reader import Reader
from piolet.logbook.records import Findings, JobRecord, Unanswered
from piolet.watch.archive import VisibleJobs
from piolet.watch.book import Book
from piolet.watch.diagnosis import case, causal, logs
from piolet.watch.diagnosis.case import Case
from piolet.watch.diagnosis.rule import Rule
from piolet.watch.past import Past
from piolet.watch.quality import DataQuality

GROUP = "piolet.rules"
LEAST_S = 60.0
"""Seconds of samples without which nothing is judged."""

LEAST_COVERAGE = 0.5


def diagnose(book: Book, log_paths: Iterable[Path] = (), jobs: VisibleJobs | None = None) -> Findings:
    """Return what is wrong with a job, the likeliest cause first, and what could not be judged.

    The job's own output is read where it lies beside the logbook, before the logs of `log_paths`. `jobs` are those with
    which it may be compared.

    Raises:
        StorageError: a log cannot be read.
    """
    return judge(
        book.reader,
        book.job,
        book.interval,
        book.quality(),
        matches=read_logs(book, log_paths),
        past=Past(jobs, book.grant.job) if jobs else None,
    )


def read_logs(book: Book, log_paths: Iterable[Path] = ()) -> tuple[logs.LogMatch, ...]:
    """Return what the job's output and other logs say of failures."""
    output = book.output()
    return logs.read([*([output] if output else []), *log_paths])


def judge(
    reader: Reader,
    job: JobRecord,
    interval: Interval | None,
    quality: DataQuality,
    *,
    matches: tuple[logs.LogMatch, ...] = (),
    past: Past | None = None,
) -> Findings:
    """Let every rule judge."""
    found = plugins.load(GROUP)
    broken = tuple(Unanswered(each.subject, each.reason) for each in found.broken)
    complete = job.program_ended_ns is not None
    if interval is None:
        return Findings(time.time_ns(), complete, unanswered=(*broken, Unanswered("all rules", "no samples")))
    prepared = case.prepare(reader, job, interval, quality, logs=matches, past=past)
    suspects, unanswered = _judged(prepared, found.loaded.values())
    return Findings(time.time_ns(), complete, causal.conclude(suspects), (*broken, *unanswered))


def _judged(prepared: Case, rules: Iterable[Rule]) -> tuple[list[causal.Suspect], list[Unanswered]]:
    suspects: list[causal.Suspect] = []
    unanswered: list[Unanswered] = []
    for rule in rules:
        missing = ", ".join(need for need in rule.needs if not prepared.has(need)) or _too_little(prepared, rule)
        if missing:
            unanswered.append(Unanswered(rule.name, missing))
        else:
            suspects += [causal.Suspect(rule, each) for each in rule.judge(prepared)]
    return suspects, unanswered


def _too_little(prepared: Case, rule: Rule) -> str:
    """Return why the samples that a rule needs are too few to judge, empty if they are not."""
    families = {need.partition(".")[0] for need in rule.needs} - {"events", "logs", "user", "clock", "past"}
    if families and prepared.interval.duration_s < LEAST_S:
        return f"only {prepared.interval.duration_s:.0f} s were recorded; {LEAST_S:.0f} s are needed"
    for family in sorted(families):
        covered = prepared.quality.coverage(family)
        if covered is not None and covered < LEAST_COVERAGE:
            return f"only {covered:.0%} of the {family} samples are there"
    return ""
