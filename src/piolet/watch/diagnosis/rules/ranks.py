"""A rule about ranks, from the times that the program reports for each of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from piolet.logbook.records import Evidence
from piolet.watch.diagnosis.case import Case
from piolet.watch.diagnosis.rule import Level, Rule, Suspicion

TIMES = ("compute_s", "step_time_s")
"""What a rank may report: the seconds of its own work in a step, else those of the whole step."""

SLOW_SCORE = 0.75
"""Time of the faster ranks over a rank's own, below which the rank is slow (NVIDIA resiliency extension)."""

MOST_SLOW = 0.25
"""With a greater share of slow ranks there is no straggler."""


def _slow(case: Case) -> Iterator[Suspicion]:
    name = next((each for each in TIMES if case.has(f"user.{each}")), "")
    rows = case.query(
        """
        WITH each AS (
            SELECT rank, any_value(node) AS node, CAST(floor((time_ns - $start) / $width) AS BIGINT) AS bin,
                median(value) AS seconds
            FROM user WHERE name = $name AND rank IS NOT NULL AND value > 0 AND isfinite(value)
                AND time_ns >= $start AND time_ns < $end
            GROUP BY rank, bin
        ), peers AS (
            SELECT bin, quantile_cont(seconds, 0.25) AS usual FROM each GROUP BY bin HAVING count(*) >= 2
        )
        SELECT rank, node, bin, seconds, usual FROM each JOIN peers USING (bin) WHERE bin >= $steady ORDER BY rank, bin
        """,
        name=name,
        start=case.interval.start_ns,
        end=case.interval.end_ns,
        width=case.width_ns,
        steady=case.steady_bin,
    )
    ranks = {rank: list(each) for rank, each in groupby(rows, key=lambda row: row[0])}
    slow = {rank: found for rank, each in ranks.items() if len(found := _since(each)) >= case.persistent_bins}
    if len(slow) > MOST_SLOW * len(ranks) and len(slow) > 1:
        return
    for rank, found in slow.items():
        yield _suspicion(case, name, found, always=len(found) == len(ranks[rank]))


def _since(rows: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
    """Return the bins from which on a rank was slow to the end; a single bin in between does not end it."""
    flags = [usual / seconds < SLOW_SCORE for *_, seconds, usual in rows]
    for place in range(len(rows) - 1, -1, -1):
        if not flags[place] and (place == 0 or not flags[place - 1]):
            return list(rows[place + 1 :])
    return list(rows)


def _suspicion(case: Case, name: str, rows: Sequence[Sequence[Any]], *, always: bool) -> Suspicion:
    rank, node, first, _, _ = rows[0]
    seconds, usual = (statistics.median(row[column] for row in rows) for column in (3, 4))
    from_ns, to_ns = case.time_ns(first), case.time_ns(rows[-1][2] + 1)
    fact = Evidence(f"time of rank {rank}", seconds, usual, "s", "user", name, node, None, from_ns=from_ns, to_ns=to_ns)
    why = (
        "from the beginning on, as with uneven work" if always else "after it had kept up, as with a node that got slow"
    )
    reason = f"rank {rank} takes {seconds / usual:.1f} times as long as the faster ones, {why}"
    return Suspicion((node,), from_ns, to_ns, 0.65 if always else 0.85, reason, (fact,), rank=rank)


SLOW_RANK = Rule(
    name="slow-rank",
    title="rank slower than the others",
    level=Level.SYSTEM,
    knowledge="The rank whose own work takes longest holds up a synchronous job; where it began to matters.",
    source="NVIDIA resiliency extension: score against the best rank and its own history below 0.75; OSDI'25",
    refuted_by="the reported time includes waiting for other ranks",
    next_step="if it had kept up before, run `piolet vet` on the node; else compare its share of the work",
    needs=("user.step_time_s|user.compute_s",),
    judge=_slow,
    explains=frozenset({"slower-than-before", "slower-than-past", "imbalance"}),
)
