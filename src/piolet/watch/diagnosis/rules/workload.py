"""Rules about what the program does, and symptoms of the whole job that other findings may explain."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from piolet.core.nouns import Severity
from piolet.core.text import plural
from piolet.logbook.records import Evidence
from piolet.watch.diagnosis.case import BUSY, Case
from piolet.watch.diagnosis.logs import first_failure
from piolet.watch.diagnosis.rule import Level, Rule, Suspicion
from piolet.watch.series import SECOND_NS

HANG_S = 120.0
SLOWER = 0.10
"""The least change of speed that counts (FALCON)."""

CHECKPOINT_SHARE = 0.10
_SIDE = 6
"""Bins on either side of a change that are needed to see it."""


def _steady(case: Case) -> tuple[int, int]:
    return case.time_ns(case.steady_bin), case.interval.end_ns


def _means(case: Case) -> dict[str, float | None]:
    names = ("sm", "tensor", "engine", "pulse", "cpu", "io")
    values = case.query(
        """
        SELECT avg(sm), avg(tensor), avg(engine), avg(pulse),
            (SELECT avg(cpu) FROM h WHERE bin >= $steady),
            (SELECT avg(greatest(coalesce(iowait, 0), coalesce(io_pressure, 0))) FROM h WHERE bin >= $steady)
        FROM g WHERE bin >= $steady AND engine > 0.02
        """,
        steady=case.steady_bin,
    )[0]
    return dict(zip(names, values, strict=True))


def _activity(name: str, value: float | None, expected: float | None = None) -> Evidence:
    columns = {"SM active": "sm_active_ratio", "engine active": "gr_engine_active_ratio"}
    return Evidence(name, value, expected, family="gpu", column=columns.get(name, ""))


def _starved(case: Case) -> Iterator[Suspicion]:
    means = _means(case)
    sm, pulse, cpu, io = (means[name] or 0.0 for name in ("sm", "pulse", "cpu", "io"))
    if 0 < sm < 0.5 and pulse >= 0.3 and (cpu >= 0.7 or io >= 0.1):
        why = "the CPUs are busy" if cpu >= 0.7 else "tasks wait for I/O"
        facts = (
            _activity("SM active", sm, 0.5),
            Evidence("SM active, p90 - p10", pulse, 0.3),
            Evidence("CPU busy", cpu, 0.7, family="host", column="cpu_busy_ratio"),
        )
        yield Suspicion((), *_steady(case), 0.7, f"GPUs work in pulses while {why}", facts)


INPUT = Rule(
    name="input-starvation",
    title="GPUs wait for their input",
    level=Level.WORKLOAD,
    knowledge="A data loader that is too slow feeds GPUs in pulses, all through the run, with busy CPUs or I/O waits.",
    source="TraceML: input share of the step; DCGM User Guide: SM active below 0.5 is ineffective",
    refuted_by="the step is as slow with synthetic data",
    next_step="try synthetic data once; then more workers, prefetching, decoding on the GPU, packed files",
    needs=("gpu.sm_active_ratio", "host.cpu_busy_ratio"),
    judge=_starved,
    explains=frozenset({"launch-bound"}),
)


def _launch(case: Case) -> Iterator[Suspicion]:
    means = _means(case)
    sm, engine, pulse = (means[name] or 0.0 for name in ("sm", "engine", "pulse"))
    if engine >= 0.4 and 0 < sm < 0.25 and pulse < 0.3:
        facts = (_activity("engine active", engine, 0.4), _activity("SM active", sm, 0.25))
        yield Suspicion((), *_steady(case), 0.7, "kernels are there all the time and fill few SMs", facts)


LAUNCH = Rule(
    name="launch-bound",
    title="small kernels: bound by launches or synchronisation",
    level=Level.WORKLOAD,
    knowledge="An engine that is always active over SMs that are not is many small kernels, or waiting inside kernels.",
    source="DCGM User Guide, profiling metrics: engine active against SM active",
    refuted_by="a larger batch does not raise SM active",
    next_step="profile a few steps; larger batches, torch.compile or CUDA graphs, fewer .item() calls",
    needs=("gpu.sm_active_ratio", "gpu.gr_engine_active_ratio"),
    judge=_launch,
)


def _uneven(case: Case) -> Iterator[Suspicion]:
    rows = case.query(
        f"""
        SELECT node, gpu, avg(g.sm), avg(p.sm), count(*) FILTER (g.sm < 0.85 * p.sm) / count(*) AS share
        FROM g JOIN peers p USING (bin)
        WHERE bin >= $steady AND p.engine > {BUSY} AND p.gpus >= 4 AND p.sm > 0.1 AND g.engine > 0.05
            AND g.clock >= 0.92 * p.clock AND coalesce(g.thermal, 0) < 0.6 AND g.sm IS NOT NULL
        GROUP BY node, gpu HAVING count(*) >= $least AND count(*) FILTER (g.sm < 0.85 * p.sm) > 0.8 * count(*)
        ORDER BY 3
        """,  # noqa: S608 - a constant
        steady=case.steady_bin,
        least=2 * case.persistent_bins,
    )
    if not rows:
        return
    node, gpu, sm, peers, _ = rows[0]
    indexes = {row[1] for row in rows}
    nodes = {row[0] for row in rows}
    stage = len(indexes) == 1 and len(nodes) > 1
    where = f"GPU {gpu} of {plural(len(nodes), 'node')}" if stage else plural(len(rows), "GPU")
    fact = Evidence("SM active", sm, peers, family="gpu", column="sm_active_ratio", node=node, gpu=gpu)
    reason = f"{where} had less to do than the others, at the same clocks"
    single = gpu if len(rows) == 1 else None
    yield Suspicion(tuple(sorted(nodes)), *_steady(case), 0.75 if stage else 0.65, reason, (fact,), gpu=single)


IMBALANCE = Rule(
    name="imbalance",
    title="ranks have unequal work",
    level=Level.WORKLOAD,
    knowledge="Most stragglers are the workload's: uneven pipeline stages, sequence lengths, experts. Test that first.",
    source="OSDI'25: a faulty worker dominates in 1.7 % of slow jobs, uneven stages in 39 %, sequence length in 21 %",
    refuted_by="the same ranks on other nodes are as fast as the rest",
    next_step="compare tokens and layers per rank; balance stages, bucket sequences by length",
    needs=("gpu.sm_active_ratio", "gpu.sm_clock_hz"),
    judge=_uneven,
    explains=frozenset({"slower-than-before", "slower-than-past"}),
)


def _checkpoint(case: Case) -> Iterator[Suspicion]:
    rows = case.query(
        """
        WITH phases AS (
            SELECT code, time_ns, coalesce(lead(time_ns) OVER (ORDER BY time_ns), $end) AS until FROM events
            WHERE kind = 'phase'
        )
        SELECT time_ns, until FROM phases WHERE code ILIKE '%checkpoint%' AND time_ns >= $start ORDER BY 1
        """,
        start=case.interval.start_ns,
        end=case.interval.end_ns,
    )
    if not rows:
        return
    lengths = [(until - start) / SECOND_NS for start, until in rows]
    share = sum(lengths) / max(case.interval.duration_s - case.startup_s, 1.0)
    longest = max(range(len(rows)), key=lengths.__getitem__)
    usual = statistics.median(lengths)
    stalled = len(rows) >= 3 and lengths[longest] > max(3 * usual, usual + 10)
    if share > CHECKPOINT_SHARE or stalled:
        facts = (
            Evidence("share of the time", share, CHECKPOINT_SHARE),
            Evidence(
                "longest checkpoint", lengths[longest], usual, "s", from_ns=rows[longest][0], to_ns=rows[longest][1]
            ),
        )
        reason = (
            f"one checkpoint took {lengths[longest]:.0f} s, the others {usual:.0f} s"
            if stalled
            else f"checkpoints take {share:.0%} of the time"
        )
        first, last = rows[longest] if stalled else (rows[0][0], rows[-1][1])
        yield Suspicion((), first, last, 0.85, reason, facts)


CHECKPOINT = Rule(
    name="checkpoint-stall",
    title="checkpoints take long",
    level=Level.WORKLOAD,
    knowledge="Training stands still while a checkpoint is written in the foreground.",
    source="NVIDIA resiliency extension: a checkpoint that ends counts as progress",
    refuted_by="the phases are marked wrongly (piolet.phase)",
    next_step="write asynchronously, one file a rank, to a local disk first; checkpoint less often",
    needs=("events.phase",),
    judge=_checkpoint,
    explains=frozenset({"io-stall", "slower-than-before", "slower-than-past"}),
)


def _hang(case: Case) -> Iterator[Suspicion]:
    bins = case.query("SELECT bin, tensor, sm, nvlink, engine FROM peers ORDER BY bin")
    working = [row for row in bins if (row[1] or 0) > 0.03]
    if not working:
        return
    last = working[-1][0] + 1
    from_ns, to_ns = case.time_ns(last), case.interval.end_ns
    if to_ns - from_ns < HANG_S * SECOND_NS or len(working) < _SIDE:
        return
    engine = statistics.fmean(row[4] or 0 for row in bins if row[0] >= last) if bins[-1][0] >= last else 0.0
    if _does_something_else(case, last, engine):
        return
    named = _idle_among_waiting(case, last, engine)
    facts = (
        Evidence(
            "tensor active since",
            0.0,
            statistics.fmean(row[1] for row in working),
            family="gpu",
            column="tensor_active_ratio",
            from_ns=from_ns,
            to_ns=to_ns,
        ),
        Evidence(
            "engine active since (waiting inside kernels)",
            engine,
            family="gpu",
            column="gr_engine_active_ratio",
            from_ns=from_ns,
            to_ns=to_ns,
        ),
    )
    reason = f"no work for the last {(to_ns - from_ns) / SECOND_NS:.0f} s"
    if named:
        reason += ", all GPUs wait but " + ", ".join(f"{node}:{gpu}" for node, gpu in named)
    nodes = tuple(sorted({node for node, _ in named}))
    gpu = named[0][1] if len(named) == 1 else None
    confidence = 0.9 if named else 0.75 if engine > 0.5 else 0.55
    yield Suspicion(nodes, from_ns, to_ns, confidence, reason, facts, gpu=gpu, severity=Severity.ERROR)


def _does_something_else(case: Case, last: int, engine: float) -> bool:
    """Return whether since bin `last` the job writes, waits for I/O, or computes on its processors."""
    writing, waiting, cpu = case.query(
        """
        SELECT avg(disk_write), avg(greatest(coalesce(io_pressure, 0), coalesce(iowait, 0))), avg(cpu)
        FROM h WHERE bin >= $last
        """,
        last=last,
    )[0]
    return (writing or 0) > 50e6 or (waiting or 0) > 0.2 or (engine < BUSY and (cpu or 0) > 0.15)


def _idle_among_waiting(case: Case, last: int, engine: float) -> list[tuple[str, int]]:
    """Return the GPUs that are idle while the others wait in a collective; none if there are too many to name."""
    odd = case.query(
        """
        SELECT node, gpu FROM g WHERE bin >= $last
        GROUP BY ALL HAVING avg(engine) < 0.05 AND $engine > 0.5 ORDER BY ALL
        """,
        last=last,
        engine=engine,
    )
    return [(str(node), int(gpu)) for node, gpu in odd] if len(odd) <= 8 else []


HANG = Rule(
    name="hang",
    title="the job hangs",
    level=Level.SYMPTOM,
    knowledge="GPUs that wait in a collective have an active engine without tensor work; the missing rank is idle.",
    source="ByteRobust: no traffic with low tensor activity; ranks that differ from the majority",
    refuted_by="the program was in a phase without GPU work (evaluation, a checkpoint, its end)",
    next_step="py-spy dump the named rank, or read PyTorch's flight recorder; end the job rather than let it time out",
    needs=("gpu.tensor_active_ratio", "gpu.gr_engine_active_ratio"),
    judge=_hang,
)


def _slower(case: Case) -> Iterator[Suspicion]:
    points = _speed(case)
    split = change_point([value for _, value in points])
    if split is None:
        return
    before = statistics.fmean(value for _, value in points[:split])
    after = statistics.fmean(value for _, value in points[split:])
    from_ns = case.time_ns(points[split][0])
    stepped = case.has("user.step")
    what = "steps a second" if stepped else "SM activity of the median GPU"
    fact = Evidence(
        what,
        after,
        before,
        family="user" if stepped else "gpu",
        column="step" if stepped else "sm_active_ratio",
        from_ns=from_ns,
        to_ns=case.interval.end_ns,
    )
    yield Suspicion((), from_ns, case.interval.end_ns, 0.6, f"{1 - after / before:.0%} slower than before", (fact,))


def _speed(case: Case) -> list[tuple[int, float]]:
    """Return (bin, speed) of the steady state: steps a second where the program tells them, else SM activity."""
    if case.has("user.step"):
        rows = case.query(
            """
            WITH each AS (SELECT CAST(floor((time_ns - $start) / $width) AS BIGINT) AS bin, max(step) AS step
                FROM user WHERE step IS NOT NULL GROUP BY ALL)
            SELECT bin, (step - lag(step) OVER line) / ((bin - lag(bin) OVER line) * $seconds)
            FROM each WINDOW line AS (ORDER BY bin) ORDER BY bin
            """,
            start=case.interval.start_ns,
            width=case.width_ns,
            seconds=case.width_ns / SECOND_NS,
        )
    else:
        rows = case.query("SELECT bin, sm FROM peers ORDER BY bin")
    return [(bin_, value) for bin_, value in rows if bin_ >= case.steady_bin and value is not None and value >= 0]


def change_point(values: Sequence[float]) -> int | None:
    """Return the index from which `values` are lower, None without a lasting fall beyond doubt."""
    best, found = 0.0, None
    for split in range(_SIDE, len(values) - _SIDE + 1):
        before, after = values[:split], values[split:]
        fall = statistics.fmean(before) - statistics.fmean(after)
        error = (statistics.pvariance(before) / len(before) + statistics.pvariance(after) / len(after)) ** 0.5
        score = fall / max(error, 1e-9)
        if (
            fall >= SLOWER * statistics.fmean(before)
            and score > max(best, 3.0)
            and statistics.median(after) <= (1 - SLOWER) * statistics.median(before)
        ):
            best, found = score, split
    return found


SLOWER_THAN_BEFORE = Rule(
    name="slower-than-before",
    title="the job is slower than it was",
    level=Level.SYMPTOM,
    knowledge="A lasting fall of the speed by 10 % or more; it is what users notice, and has a cause elsewhere.",
    source="FALCON: change point with at least 10 % mean shift",
    refuted_by="the program changed what it does (longer sequences, evaluation)",
    next_step="see what changed at that time: `piolet watch compare` with an earlier job",
    needs=("gpu.sm_active_ratio",),
    judge=_slower,
)


def _failed(case: Case) -> Iterator[Suspicion]:
    match = first_failure(case.logs)
    if match is None:
        return
    when = match.time_ns or case.interval.end_ns
    who = f"rank {match.rank}" if match.rank is not None else "a rank that the line does not name"
    fact = Evidence(match.text[:200], f"{match.path.name}:{match.line}", from_ns=when, to_ns=when)
    confidence = 0.5 if match.pattern.follows else 0.85 if match.rank is not None else 0.7
    reason = f"{who} failed first: {match.pattern.meaning}"
    yield Suspicion((), when, when, confidence, reason, (fact,), rank=match.rank, severity=Severity.ERROR)


FAILURE = Rule(
    name="first-failure",
    title="the rank that failed first",
    level=Level.WORKLOAD,
    knowledge="One rank fails, the others time out: what initiates counts, what follows from it does not.",
    source="NCCL's watchdog and PyTorch's messages; the earliest initiating failure wins",
    refuted_by="an earlier message in a log that was not given",
    next_step="read that rank's lines from there on",
    needs=("logs",),
    judge=_failed,
    explains=frozenset({"hang"}),
)
