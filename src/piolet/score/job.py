"""Scoring a job: what DuckDB summed, put through the model."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from piolet.logbook.reader import Reader
from piolet.logbook.records import RUNNING, JobRecord, read_outcome, state
from piolet.score import measure
from piolet.score.ceilings import of_model
from piolet.score.labels import activity, label
from piolet.score.measure import Steps, Window
from piolet.score.model import NOT_MEASURED, GpuScore, GpuTotals, JobScore, factorise, mean_saturation
from piolet.score.notes import notes
from piolet.score.stages import phases_of
from piolet.score.startup import startup_s

UNEVEN = 0.05
"""A GPU that is less than this below the median is as good as the others, however alike these are."""

OUTLIER_IQR = 1.5
MIN_GPUS_FOR_OUTLIERS = 4

Row = Mapping[str, Any]


def score_job(reader: Reader, job: JobRecord) -> JobScore:
    """Score the logbook as it is now; a job without samples, GPUs or an end gets what can be known, and notes."""
    running = state(job, read_outcome(reader.logbook.outcome)) == RUNNING
    window = measure.prepare(reader, job)
    if window is None:
        return _unmeasured(reader, job, running=running)
    rows = measure.totals(reader, window)
    seconds = measure.each_second(reader, "score")
    start = startup_s([time_s for time_s, _ in seconds], [value for _, value in seconds], window.bin_s)
    later = measure.totals(reader, window, start) if start else rows
    hosts = measure.host_means(reader)
    gpus = _gpus(measure.steps(reader, window), hosts, window, rows, later)
    totals = [_totals(row) for row in rows]
    coverage = statistics.fmean(gpu.coverage_ratio for gpu in gpus) if gpus else None
    used = [row for row, each in zip(later, gpus, strict=True) if each.used] or later
    means = _mean_activity(used, hosts)
    phases, period = phases_of(reader, window, start, seconds, coverage or 0.0)
    return JobScore(
        job_id=job.job_id,
        wall_s=window.duration_s,
        running=running,
        gpus=gpus,
        coverage_ratio=coverage,
        label=label(means, coverage or 0.0),
        score=mean_saturation(totals),
        factors=factorise(totals),
        steady=mean_saturation([_totals(row) for row in later]),
        startup_s=start,
        compute=_pooled(rows, "compute"),
        memory=_pooled(rows, "memory"),
        network=_pooled(rows, "network"),
        ofu=_pooled(rows, "ofu"),
        energy_j=_sum(gpu.energy_j for gpu in gpus),
        spread=_spread(gpus),
        laggards=_laggards(gpus),
        activity=means,
        phases=phases,
        period=period,
        ceilings=tuple(sorted({of_model(gpu.model).name for gpu in gpus})),
        notes=tuple(notes(reader, job, window, gpus, rows, running=running)),
    )


def _unmeasured(reader: Reader, job: JobRecord, *, running: bool) -> JobScore:
    known = job.program_started_ns is not None and job.program_ended_ns is not None
    wall_s = ((job.program_ended_ns or 0) - (job.program_started_ns or 0)) / 1e9 if known else None
    gpus = tuple(GpuScore(node, gpu.index, gpu.uuid, gpu.model, 0.0, label=NOT_MEASURED) for node, gpu in job.gpus)
    return JobScore(
        job_id=job.job_id,
        wall_s=wall_s,
        running=running,
        gpus=gpus,
        coverage_ratio=0.0 if gpus else None,
        label=NOT_MEASURED,
        notes=tuple(notes(reader, job, None, gpus, (), running=running)),
    )


def _gpus(
    between: Mapping[int, Steps],
    hosts: Mapping[str, Row],
    window: Window,
    rows: Sequence[Row],
    later: Sequence[Row],
) -> tuple[GpuScore, ...]:
    unseen = Steps(window.duration_s, None, 0)
    return tuple(
        _gpu(row, steady, between.get(row["id"], unseen), window, hosts.get(row["node"], {}))
        for row, steady in zip(rows, later, strict=True)
    )


def _gpu(row: Row, steady: Row, between: Steps, window: Window, host: Row) -> GpuScore:
    totals, coverage = _totals(row), min(max(1.0 - between.missing_s / window.duration_s, 0.0), 1.0)
    return GpuScore(
        node=row["node"],
        index=row["gpu"],
        uuid=row["uuid"],
        model=row["model"],
        coverage_ratio=coverage,
        score=totals.score,
        compute=row["compute"],
        memory=row["memory"],
        network=row["network"],
        busy=row["busy"],
        sm_active=row["sm"],
        used=totals.used,
        power_w=row["power_w"],
        energy_j=between.energy_j,
        resets=between.resets,
        memory_used_bytes=row["memory_used_bytes"],
        temperature_c=row["temperature_c"],
        throttled_s=row["throttled_s"],
        label=label(activity(steady, host), coverage),
        totals=totals,
    )


def _totals(row: Row) -> GpuTotals:
    return GpuTotals(row["observed_s"], row["saturated_s"], row["busy_s"], row["peak_busy"])


def _mean_activity(rows: Sequence[Row], hosts: Mapping[str, Row]) -> dict[str, float | None]:
    each = [activity(row, hosts.get(row["node"], {})) for row in rows]
    return {name: _mean([one[name] for one in each]) for name in (each[0] if each else ())}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _sum(values: Iterator[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _pooled(rows: Sequence[Row], name: str) -> float | None:
    """The mean over GPU-seconds: GPUs weigh as much as was observed of them."""
    known = [(row[name], row["observed_s"]) for row in rows if row[name] is not None and row["observed_s"] > 0]
    weight = sum(seconds for _, seconds in known)
    return sum(value * seconds for value, seconds in known) / weight if weight else None


def _spread(gpus: Sequence[GpuScore]) -> float | None:
    """The coefficient of variation of the used GPUs' scores."""
    scores = [gpu.score for gpu in gpus if gpu.used and gpu.score is not None]
    mean = statistics.fmean(scores) if scores else 0.0
    return statistics.pstdev(scores) / mean if len(scores) > 1 and mean > 0 else None


def _laggards(gpus: Sequence[GpuScore]) -> tuple[str, ...]:
    """The used GPUs below p25 - 1.5 IQR (Tukey's fence) and noticeably below the median, lowest first."""
    scored = sorted((gpu.score, f"{gpu.node}:{gpu.index}") for gpu in gpus if gpu.used and gpu.score is not None)
    if len(scored) < MIN_GPUS_FOR_OUTLIERS:
        return ()
    low, median, high = statistics.quantiles((score for score, _ in scored), n=4, method="inclusive")
    fence = min(low - OUTLIER_IQR * (high - low), (1 - UNEVEN) * median)
    return tuple(name for score, name in scored if score < fence)
