"""Rules that look at other jobs: earlier runs of the same program, and jobs that used the same things meanwhile."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from piolet.core.nouns import Interval
from piolet.core.text import plural
from piolet.logbook.reader import Reader
from piolet.logbook.records import Evidence
from piolet.watch import steps
from piolet.watch.diagnosis.case import Case
from piolet.watch.diagnosis.rule import Level, Rule, Suspicion
from piolet.watch.past import Past

SLOWER = 1.10
"""S = T / T_ideal above which a job counts as slowed down (OSDI'25)."""

LEAST_RUNS = 2
LEAST_BYTES_PER_S = 100e6
LEAST_OPS_PER_S = 1000.0
NOISY = 4.0
"""How many times as much as this job another must do to be called the noisy one."""

_WAITS = "greatest(coalesce(t.io_pressure, 0), coalesce(t.iowait, 0)) > 0.25"


def _slower(case: Case) -> Iterator[Suspicion]:
    now = steps.median_s(case.reader)
    if now is None or case.past is None:
        return
    before = dict(_step_times(case.past))
    if len(before) < LEAST_RUNS or now < SLOWER * statistics.median(before.values()) or now <= max(before.values()):
        return
    usual = statistics.median(before.values())
    span = case.time_ns(case.steady_bin), case.interval.end_ns
    fact = Evidence("median time of a step", now, usual, "s")
    reason = f"a step takes {now / usual - 1:.0%} longer than in the last {plural(len(before), 'run')}"
    yield Suspicion((), *span, 0.7, f"{reason} of it ({', '.join(before)})", (fact,))


def _step_times(past: Past) -> Iterator[tuple[str, float]]:
    for run in past.runs():
        with past.jobs.open(run.cluster, run.job_id) as book:
            if seconds := steps.median_s(book.reader):
                yield run.job_id, seconds


SLOWER_THAN_PAST = Rule(
    name="slower-than-past",
    title="the job is slower than its own past",
    level=Level.SYMPTOM,
    knowledge="The same program on as many GPUs should step as fast as in its earlier runs.",
    source="OSDI'25: slowdown T / T_ideal above 1.1; FALCON: changes of at least 10 % count",
    refuted_by="the program, its data or its batch size changed",
    next_step="`piolet watch compare` with one of those runs says what changed",
    needs=("past", "user.step"),
    judge=_slower,
)


def _noisy(case: Case) -> Iterator[Suspicion]:
    stalls = [
        each for each in case.episodes("h", _WAITS, ["iowait"], bins=2) if each.to_ns > case.time_ns(case.steady_bin)
    ]
    if not stalls or case.past is None:
        return
    span = Interval(min(each.from_ns for each in stalls), max(each.to_ns for each in stalls))
    own_bytes, own_ops = _traffic(case.reader, span)
    for job in case.past.beside(span):
        with case.past.jobs.open(job.cluster, job.job_id) as book:
            moved, ops = _traffic(book.reader, span)
        if moved > max(LEAST_BYTES_PER_S, NOISY * own_bytes):
            fact = Evidence(f"traffic of job {job.job_id} on shared file systems", moved, own_bytes, "B/s")
        elif ops > max(LEAST_OPS_PER_S, NOISY * own_ops):
            fact = Evidence(f"metadata operations of job {job.job_id}", ops, own_ops, "1/s")
        else:
            continue
        reason = f"job {job.job_id} of {job.user} kept a shared file system busy while this one waited for it"
        yield Suspicion((), span.start_ns, span.end_ns, 0.7, reason, (fact,))


def _traffic(reader: Reader, span: Interval) -> tuple[float, float]:
    """Return bytes and metadata operations a second of a job on shared file systems in an interval, all nodes."""
    found = reader.database.execute(
        """
        SELECT coalesce(sum(bytes), 0), coalesce(sum(ops), 0) FROM (
            SELECT avg(coalesce(read_bytes_per_s, 0) + coalesce(write_bytes_per_s, 0)) AS bytes,
                avg(metadata_ops_per_s) AS ops
            FROM fs WHERE kind IN ('lustre', 'nfs') AND time_ns >= $start AND time_ns < $end GROUP BY node, fs
        )
        """,
        {"start": span.start_ns, "end": span.end_ns},
    ).fetchall()[0]
    return float(found[0]), float(found[1])


NOISY_JOB = Rule(
    name="noisy-job",
    title="another job keeps a shared file system busy",
    level=Level.SYSTEM,
    knowledge="Jobs share file systems: one that moves far more, or opens far more files, lets the others wait.",
    source="site reports; the servers' own counters are not at hand, so it is the jobs' clients that are compared",
    refuted_by="the waits go on after that job has ended",
    next_step="ask its owner, or the operators; read from node-local copies meanwhile",
    needs=("past", "host.io_pressure_ratio", "fs.read_bytes_per_s"),
    judge=_noisy,
    explains=frozenset({"io-stall", "input-starvation", "slower-than-before", "slower-than-past"}),
)
