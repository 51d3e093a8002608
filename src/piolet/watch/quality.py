"""How good the data of a job are: what should be there, what is, and what is wrong with it. Nothing is repaired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from piolet.core.nouns import CheckResult, Interval
from piolet.logbook.quality import GAP_PERIODS, not_applicable, unavailable
from piolet.logbook.reader import Reader
from piolet.logbook.records import JobRecord
from piolet.logbook.schema import FAMILIES, Family
from piolet.watch.series import SECOND_NS, Metric, device, value

SAMPLED = tuple(name for name in FAMILIES if name not in {"clock", "inventory", "user", "events"})
"""Families with a row every sampling period."""

_OFFSETS = """
    SELECT node, arg_max(offset_s, time_ns) FROM clock
    WHERE reference <> 'utc' OR node NOT IN (SELECT node FROM clock WHERE reference <> 'utc') GROUP BY node
"""
"""Against the job's first node, which is what its nodes share; against UTC where that is not known."""

STEADY = tuple(name for name in SAMPLED if name != "proc")
"""Of these, families whose lines last as long as the job; processes come and go."""

MOST_GAPS = 20
"""Gaps listed a line; all are counted in its coverage."""

COUNTERS = ("energy_j", "ecc_corrected", "ecc_uncorrected")


@dataclass(frozen=True, slots=True)
class Presence:
    """The samples of one device of a node (`device` empty: the node's own) against what one a period would give.

    `late_s` is how long after the beginning the first came, `early_s` how long before the end the last one;
    `gaps` are the holes longer than GAP_PERIODS periods, at most MOST_GAPS of them.
    """

    family: str
    node: str
    device: str
    expected: int
    samples: int
    late_s: float
    early_s: float
    gaps: tuple[Interval, ...] = ()

    @property
    def coverage_ratio(self) -> float:
        """Share of the expected samples that is there, 0..1."""
        return min(1.0, self.samples / self.expected) if self.expected else 1.0


@dataclass(frozen=True, slots=True)
class DataQuality:
    """What the data of a job are worth. Empty `presence` with a None `interval`: nobody knows when the program ran.

    clock_offset_s   how far off each node's clock was: as recorded last, else as vetted; absent if unknown
    blanks           (family, column) -> samples without a value, of a column that has some
    never            (family, column) that nobody could read, or (family, "") without a single row
    resets           (node, device, counter) -> how often it fell
    dropped_rows     rows lost by the recorder while the file system refused; `restarts` of its agents by node
    unavailable      (node, source, why) that a collector told
    not_applicable   sources that are not there, each with how many nodes said so
    """

    interval: Interval | None
    presence: tuple[Presence, ...]
    clock_offset_s: Mapping[str, float]
    blanks: Mapping[tuple[str, str], int]
    never: tuple[tuple[str, str], ...]
    resets: Mapping[tuple[str, str, str], int]
    dropped_rows: int
    restarts: Mapping[str, int]
    unavailable: tuple[tuple[str, str, str], ...]
    not_applicable: tuple[str, ...]
    torn: tuple[str, ...]

    def coverage(self, family: str) -> float | None:
        """Return the share of the family's expected samples that is there, None if nothing was expected."""
        expected = sum(each.expected for each in self.presence if each.family == family)
        return (
            sum(min(each.samples, each.expected) for each in self.presence if each.family == family) / expected
            if expected
            else None
        )

    @property
    def shares(self) -> dict[str, float]:
        """The coverage of every family of which something was expected."""
        families = sorted({each.family for each in self.presence})
        return {name: share for name in families if (share := self.coverage(name)) is not None}

    @property
    def incomplete(self) -> tuple[Presence, ...]:
        """The devices with holes, the worst first."""
        return tuple(
            sorted((each for each in self.presence if each.coverage_ratio < 1), key=lambda each: each.coverage_ratio)
        )


def assess(reader: Reader, job: JobRecord, interval: Interval | None, checks: Sequence[CheckResult]) -> DataQuality:
    """Assess a logbook over the interval in which samples are due."""
    filled = {name: _filled(reader, FAMILIES[name]) for name in SAMPLED}
    return DataQuality(
        interval=interval,
        presence=tuple(each for name in STEADY for each in _presence(reader, job, interval, FAMILIES[name])),
        clock_offset_s=_clock_offsets(reader, checks),
        blanks={(name, column): missing for name in SAMPLED for column, missing in _blanks(filled[name])},
        never=_never(filled),
        resets=_resets(reader),
        dropped_rows=_dropped(reader),
        restarts=_restarts(reader),
        unavailable=unavailable(reader),
        not_applicable=not_applicable(reader),
        torn=tuple(str(path.relative_to(reader.logbook.path)) for path in reader.torn),
    )


def coverage(reader: Reader, job: JobRecord, interval: Interval | None, family: str) -> float | None:
    """Return the share of a family's expected samples that is there, None if nobody knows what to expect."""
    period_s = job.period_s(family)
    if family not in STEADY or interval is None or not period_s:
        return None
    counted = _counted(reader, FAMILIES[family], interval)
    due = int(interval.duration_s / period_s)
    lines = _expected(job, family, counted)
    there = sum(min(counted[line][0], due) for line in lines if line in counted)
    return there / (due * len(lines)) if due * len(lines) else None


def never(reader: Reader) -> tuple[tuple[str, str], ...]:
    """Return (family, column) of what has no value at all, (family, "") of families without a row."""
    return _never({name: _filled(reader, FAMILIES[name]) for name in SAMPLED})


Device = tuple[str, str]
"""A node and its device, "" for the node itself."""


def _presence(reader: Reader, job: JobRecord, interval: Interval | None, family: Family) -> Iterator[Presence]:
    period_s = job.period_s(family.name)
    if interval is None or not period_s:
        return
    counted = _counted(reader, family, interval)
    due = int(interval.duration_s / period_s)
    complete = all(samples >= due for samples, _, _ in counted.values())
    gaps = {} if complete else _gaps(reader, family, interval, period_s)
    for line in _expected(job, family.name, counted):
        if line not in counted:
            missing_s = interval.duration_s
            yield Presence(family.name, *line, due, 0, missing_s, missing_s, (interval,))
            continue
        samples, first, last = counted[line]
        late_s = max(0.0, (first - interval.start_ns) / SECOND_NS - period_s)
        early_s = max(0.0, (interval.end_ns - last) / SECOND_NS - period_s)
        yield Presence(family.name, *line, due, samples, late_s, early_s, gaps.get(line, ()))


def _expected(job: JobRecord, family: str, counted: Mapping[Device, Any]) -> list[Device]:
    """Return the lines that are due: every allocated GPU, every node of a family that is on; of others those seen."""
    used = [held.node for held in job.allocation if held.used]
    if family == "gpu":
        return [(node, str(gpu.index)) for node, gpu in job.gpus] or sorted(counted)
    if family == "host":
        return [(node, "") for node in used] or sorted(counted)
    return sorted(counted)


def _counted(reader: Reader, family: Family, interval: Interval) -> dict[Device, tuple[int, int, int]]:
    found = reader.database.execute(
        f"SELECT node, {device(family)}, count(DISTINCT time_ns), min(time_ns), max(time_ns) "  # noqa: S608 - a known family
        f'FROM "{family.name}" WHERE time_ns >= $start AND time_ns < $end GROUP BY ALL',
        {"start": interval.start_ns, "end": interval.end_ns},
    ).fetchall()
    return {(node, line): (samples, first, last) for node, line, samples, first, last in found}


def _gaps(reader: Reader, family: Family, interval: Interval, period_s: float) -> dict[Device, tuple[Interval, ...]]:
    """Return the longest gaps of every line that has some, in their order."""
    found = reader.database.execute(
        f"""
        WITH samples AS (
            SELECT node, {device(family)} AS line, time_ns FROM "{family.name}"
            WHERE time_ns >= $start AND time_ns < $end
        ), times AS (
            FROM samples UNION ALL SELECT DISTINCT node, line, unnest([$start - $period, $end]) FROM samples
        ), steps AS (
            SELECT *, lead(time_ns) OVER (PARTITION BY node, line ORDER BY time_ns) AS next_ns FROM times
        )
        SELECT node, line, greatest(time_ns + $period, $start) AS from_ns, next_ns FROM steps
        WHERE next_ns - time_ns > $longest
        QUALIFY row_number() OVER (PARTITION BY node, line ORDER BY next_ns - time_ns DESC) <= {MOST_GAPS}
        ORDER BY node, line, from_ns
        """,  # noqa: S608 - a known family
        {
            "start": interval.start_ns,
            "end": interval.end_ns,
            "period": round(period_s * SECOND_NS),
            "longest": round(GAP_PERIODS * period_s * SECOND_NS),
        },
    ).fetchall()
    gaps: dict[Device, tuple[Interval, ...]] = {}
    for node, line, start, end in found:
        gaps[node, line] = (*gaps.get((node, line), ()), Interval(start, end))
    return gaps


def _filled(reader: Reader, family: Family) -> dict[str, int]:
    """Return how many rows have a value, by column; under "" how many rows there are."""
    names = family.numbers
    counts = ", ".join(f"count({value(Metric(family.name, name))})" for name in names)
    found = reader.database.execute(f'SELECT count(*), {counts} FROM "{family.name}"').fetchall()[0]  # noqa: S608 - same
    return dict(zip(("", *names), found, strict=True))


def _blanks(filled: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for name, count in filled.items():
        if name and 0 < count < filled[""]:
            yield name, filled[""] - count


def _never(filled: Mapping[str, Mapping[str, int]]) -> tuple[tuple[str, str], ...]:
    empty = ((family, "") for family, counts in filled.items() if not counts[""])
    blank = (
        (family, name) for family, counts in filled.items() if counts[""] for name, count in counts.items() if not count
    )
    return (*empty, *blank)


def _resets(reader: Reader) -> dict[tuple[str, str, str], int]:
    falls = ", ".join(
        f"lag({name}) OVER (PARTITION BY node, gpu ORDER BY time_ns) > {name} AS {name}" for name in COUNTERS
    )
    counts = ", ".join(f"count(*) FILTER ({name})" for name in COUNTERS)
    found = reader.database.execute(
        f"SELECT node, CAST(gpu AS VARCHAR), {counts} FROM (SELECT node, gpu, {falls} FROM gpu) GROUP BY ALL"  # noqa: S608 - same
    ).fetchall()
    return {
        (node, gpu, name): count
        for node, gpu, *each in found
        for name, count in zip(COUNTERS, each, strict=True)
        if count
    }


def _clock_offsets(reader: Reader, checks: Sequence[CheckResult]) -> dict[str, float]:
    """Return what the recorder measured last, else what vetting found."""
    vetted = {each.node: each.value for each in checks if each.check == "clock" and isinstance(each.value, int | float)}
    measured = reader.database.execute(_OFFSETS).fetchall()
    return {**vetted, **{node: offset for node, offset in measured if offset is not None}}


def _dropped(reader: Reader) -> int:
    found = reader.database.execute(
        r"SELECT coalesce(sum(CAST(regexp_extract(message, '(\d+) rows dropped', 1) AS BIGINT)), 0) "
        "FROM events WHERE kind = 'agent' AND code = 'dropped'"
    ).fetchall()
    return int(found[0][0])


def _restarts(reader: Reader) -> Counter[str]:
    found = reader.database.execute("SELECT node FROM events WHERE kind = 'agent' AND code = 'restart'").fetchall()
    return Counter(str(node) for (node,) in found)
