"""A job of any size in few numbers: what its GPUs did over time, a line a GPU or, where they are many, a line a node.

A segment never changes, and what was folded can be folded further: every sample is read once, a running job costs what
is new of it, and when there are too many stretches of time, two become one. Mean, lowest and highest value are kept of
each, so that no peak is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import duckdb

from piolet.core.nouns import Gpu, Interval
from piolet.logbook import ownership, reader, segments
from piolet.logbook.layout import Logbook
from piolet.logbook.records import JobRecord
from piolet.logbook.schema import FAMILIES
from piolet.logbook.segments import Segment
from piolet.score import measure
from piolet.score.measure import Window
from piolet.score.model import GpuScore, GpuTotals
from piolet.watch import Line, Metric, Series, Split
from piolet.watch.book import CONFIG
from piolet.watch.series import SECOND_NS, value

MOST_CELLS = 1_000_000
"""Lines times stretches; a cell takes some 200 bytes."""

MOST_STRETCHES, FEWEST_STRETCHES = 512, 64
MOST_GPU_LINES = 512

SCORE = "score"
COLUMNS = (
    *("sm_active_ratio", "tensor_active_ratio", "dram_active_ratio", "nvlink_rx_bytes_per_s", "power_w"),
    "temperature_c",
)
"""Columns of the family `gpu` that are kept over time, beside the saturation."""

_FOREVER_NS = 1 << 62
_KEPT = {SCORE: SCORE} | {name: f"kept_{name}" for name in COLUMNS}
_MORE = "".join(f", CAST({value(Metric('gpu', name))} AS DOUBLE) AS kept_{name}" for name in COLUMNS)


class _Fold(NamedTuple):
    """How a number comes from samples, and how two of them become one."""

    samples: str
    further: str


def _quantity(name: str) -> dict[str, _Fold]:
    column = _KEPT[name]
    return {
        f"{name}_n": _Fold(f"count({column})", "sum"),
        f"{name}_sum": _Fold(f"sum({column})", "sum"),
        f"{name}_low": _Fold(f"min({column})", "min"),
        f"{name}_high": _Fold(f"max({column})", "max"),
    }


class _Table(NamedTuple):
    """A table of the digest: its key, and its columns, all DOUBLE."""

    name: str
    key: str
    columns: dict[str, _Fold]


_SCORED = " FILTER (score IS NOT NULL)"
_OVER_TIME = _Table("over_time", "node, gpu, cell", {k: v for name in _KEPT for k, v in _quantity(name).items()})
_OF_GPUS = _Table(
    "of_gpus",
    "id",
    {
        "observed": _Fold("count(score)", "sum"),
        "saturated": _Fold("sum(score)", "sum"),
        "busy": _Fold(f"sum(busy){_SCORED}", "sum"),
        "peak_busy": _Fold(f"max(busy){_SCORED}", "max"),
        "compute": _Fold(f"sum(compute){_SCORED}", "sum"),
        "memory": _Fold(f"sum(memory){_SCORED}", "sum"),
        "network_n": _Fold("count(network)", "sum"),
        "network": _Fold("sum(network)", "sum"),
        "sm_n": _Fold("count(sm)", "sum"),
        "sm": _Fold("sum(sm)", "sum"),
        "power_n": _Fold("count(power_w)", "sum"),
        "power": _Fold("sum(power_w)", "sum"),
        "temperature": _Fold("max(temperature_c)", "max"),
        "used_bytes": _Fold("max(memory_used_bytes)", "max"),
        "throttled": _Fold(f"count(*) FILTER (throttle & {measure.THROTTLE_MASK} != 0)", "sum"),
    },
)
_TABLES = (_OVER_TIME, _OF_GPUS)


@dataclass(slots=True)
class Digest:
    """The digest of a job as `job` says it is; `folded` is the last flush of each node that is in it.

    Safe to use from several threads.
    """

    job: JobRecord
    gpus: tuple[tuple[str, Gpu], ...]
    start_ns: int
    database: duckdb.DuckDBPyConnection
    width_ns: int
    latest_ns: int = 0
    folded: dict[str, int] = field(default_factory=dict)
    lock: RLock = field(default_factory=RLock)

    @classmethod
    def begun(cls, logbook: Logbook, owner: int, job: JobRecord) -> Digest | None:
        """Return an empty digest of a job; None while no GPU has a sample."""
        database = duckdb.connect(":memory:", config=dict(CONFIG))
        found = segments.list_segments(logbook.family("gpu"))
        paths = ownership.own_files(logbook, [each.path for each in found if each.intact()], owner)
        if job.program_started_ns is None or not job.gpus:
            reader.readable_view(database, FAMILIES["gpu"], paths)
            first = database.execute("SELECT min(time_ns) FROM gpu").fetchall()[0][0]
            gpus = job.gpus or measure.seen(database)
        else:
            first, gpus = job.program_started_ns, job.gpus
        if not paths or first is None:
            return None
        measure.allocate(database, gpus)
        period_ns = round((job.period_s("gpu") or 1.0) * SECOND_NS)
        digest = cls(job, tuple(gpus), first, database, period_ns)
        for table in _TABLES:
            kinds = (f"{name} {'VARCHAR' if name == 'node' else 'INTEGER'}" for name in table.key.split(", "))
            numbers = (f"{name} DOUBLE" for name in table.columns)
            database.execute(f"CREATE TABLE {table.name} ({', '.join((*kinds, *numbers))})")
        return digest

    @property
    def period_s(self) -> float:
        """Seconds between samples."""
        return self.job.period_s("gpu") or 1.0

    @property
    def interval(self) -> Interval:
        """From the program's start to its end, or to the newest sample while it runs."""
        end_ns = self.job.program_ended_ns or self.latest_ns + round(self.period_s * SECOND_NS)
        return Interval(self.start_ns, max(end_ns, self.start_ns + 1))

    @property
    def lines(self) -> int:
        """How many lines are kept over time."""
        return len(self.gpus) if self.by_gpu else len({node for node, _ in self.gpus})

    @property
    def by_gpu(self) -> bool:
        """Whether every GPU has a line of its own."""
        return len(self.gpus) <= MOST_GPU_LINES

    @property
    def cells(self) -> int:
        """How many rows it has at most."""
        return self.lines * min(MOST_STRETCHES, 1 + (self.latest_ns - self.start_ns) // self.width_ns)

    def refresh(self, logbook: Logbook, owner: int) -> None:
        """Fold what was written since the last time.

        Raises:
            duckdb.IOException: a segment was merged meanwhile; nothing has changed, try again.
        """
        with self.lock:
            fresh, anew = self._fresh(segments.list_segments(logbook.family("gpu")))
            paths = ownership.own_files(logbook, [each.path for each in fresh if each.intact()], owner)
            if paths:
                with self._transaction() as database:
                    for node in anew:
                        database.execute("DELETE FROM over_time WHERE node = ?", [node])
                        database.execute(
                            "DELETE FROM of_gpus WHERE id IN (SELECT id FROM allocated WHERE node = ?)", [node]
                        )
                    self._fold(database, paths)
            for each in fresh:
                self.folded[each.node] = max(each.last, self.folded.get(each.node, 0))

    def _fresh(self, found: Sequence[Segment]) -> tuple[list[Segment], list[str]]:
        """Return the segments that are to be folded, and the nodes that begin anew: a merged one covers more now."""
        fresh: list[Segment] = []
        anew: list[str] = []
        for node, each in groupby(found, key=lambda segment: segment.node):
            own, last = list(each), self.folded.get(node, 0)
            new = [segment for segment in own if segment.last > last]
            if last and any(segment.first <= last for segment in new):
                anew.append(node)
                new = own
            fresh += new
        return fresh, anew

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        self.database.begin()
        try:
            yield self.database
        except BaseException:
            self.database.rollback()
            raise
        self.database.commit()

    def _fold(self, database: duckdb.DuckDBPyConnection, paths: list[Path]) -> None:
        """Add the samples of segments; before, make stretches longer until they are few enough."""
        reader.readable_view(database, FAMILIES["gpu"], paths)
        [(latest,)] = database.execute("SELECT max(time_ns) FROM gpu").fetchall()
        self.latest_ns = max(self.latest_ns, latest or 0)
        self._widen(database)
        folds = ", ".join(f"{fold.samples} AS {name}" for table in _TABLES for name, fold in table.columns.items())
        window = Window(self.start_ns, self.job.program_ended_ns or _FOREVER_NS, self.period_s)
        database.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE fresh AS
            SELECT grouping(id) = 1 AS over_time, node, gpu, cell, id, {folds}
            FROM (
                SELECT s.*, a.node, a.gpu, CAST(floor(time_s * 1e9 / {self.width_ns}) AS INTEGER) AS cell
                FROM ({measure.samples(window, average=False, more=_MORE)}) s
                JOIN (SELECT id, node, {"gpu" if self.by_gpu else "NULL::INTEGER AS gpu"} FROM allocated) a USING (id)
                WHERE time_s < {window.duration_s}
            ) GROUP BY GROUPING SETS ((node, gpu, cell), (id))
            """  # noqa: S608 - known columns and numbers
        )
        for table in _TABLES:
            columns = ", ".join((table.key, *table.columns))
            which = "over_time" if table is _OVER_TIME else "NOT over_time"
            database.execute(f"INSERT INTO {table.name} SELECT {columns} FROM fresh WHERE {which}")  # noqa: S608 - same
        database.execute("DROP TABLE fresh")

    def _widen(self, database: duckdb.DuckDBPyConnection) -> None:
        """Double the stretches until they are few enough; join rows that became one, or are many."""
        most, times = max(FEWEST_STRETCHES, min(MOST_STRETCHES, MOST_CELLS // max(self.lines, 1))), 1
        while (self.latest_ns - self.start_ns) // (self.width_ns * times) >= most:
            times *= 2
        self.width_ns *= times
        for table, least in ((_OVER_TIME, self.lines * most), (_OF_GPUS, len(self.gpus))):
            [(rows,)] = database.execute(f"SELECT count(*) FROM {table.name}").fetchall()  # noqa: S608 - same
            if rows > 2 * least or (rows and times > 1 and table is _OVER_TIME):
                key = table.key.replace("cell", f"cell // {times} AS cell")
                folds = ", ".join(f"{fold.further}({name}) AS {name}" for name, fold in table.columns.items())
                query = f"SELECT {key}, {folds} FROM {table.name} GROUP BY ALL"  # noqa: S608 - same
                database.execute(f"CREATE OR REPLACE TABLE {table.name} AS {query}")

    def metrics(self) -> tuple[Metric, ...]:
        """Return the kept metrics that have a value."""
        counts = ", ".join(f"sum({name}_n)" for name in COLUMNS)
        with self.lock:
            found = self.database.execute(f"SELECT {counts} FROM over_time").fetchall()[0]  # noqa: S608 - same
        return tuple(Metric("gpu", name) for name, count in zip(COLUMNS, found, strict=True) if count)

    def gpu_scores(self) -> tuple[GpuScore, ...]:
        """Return every GPU of the job with its means over the time so far; without labels, which look at more."""
        folds = ", ".join(f"{fold.further}({name})" for name, fold in _OF_GPUS.columns.items())
        with self.lock:
            found = self.database.execute(f"SELECT id, {folds} FROM of_gpus GROUP BY id").fetchall()  # noqa: S608 - same
        rows = {row[0]: dict(zip(_OF_GPUS.columns, row[1:], strict=True)) for row in found}
        return tuple(
            _gpu_score(node, gpu, rows.get(number, {}), self.period_s, self.interval.duration_s)
            for number, (node, gpu) in enumerate(self.gpus)
        )

    def fine_enough(self, metric: Metric, split: Split, width_ns: int) -> bool:
        """Return whether it keeps a metric, split so, in stretches of at most `width_ns`, or has all that there is."""
        kept = metric.family == "gpu" and metric.column in COLUMNS and (split is not Split.DEVICE or self.by_gpu)
        return kept and self.width_ns <= width_ns

    def series(
        self, metric: Metric, interval: Interval, split: Split, nodes: Collection[str] = (), *, points: int
    ) -> Series:
        """Return what is kept of a metric in an interval, in at most `points` stretches."""
        stretches = -(-(interval.end_ns - interval.start_ns) // self.width_ns)
        joined = max(1, -(-stretches // points))
        found = self._cells(metric.column, split, interval, nodes, joined)
        lines = tuple(
            self._line(key, list(rows), joined) for key, rows in groupby(found, key=lambda row: (row[0], row[1]))
        )
        due = sum(not nodes or node in nodes for node, _ in self.gpus) * interval.duration_s / self.period_s
        samples = sum(sum(line.samples) for line in lines)
        return Series(metric, interval, joined * self.width_ns, lines, min(1.0, samples / due) if due >= 1 else None)

    def _line(self, key: tuple[str, str], rows: Sequence[tuple[Any, ...]], joined: int) -> Line:
        _, _, cells, *values = zip(*rows, strict=True)
        times = tuple(self.start_ns + cell * joined * self.width_ns for cell in cells)
        return Line(*key, times, *values)

    def _cells(
        self, name: str, split: Split, interval: Interval, nodes: Collection[str], joined: int
    ) -> list[tuple[Any, ...]]:
        keys = {Split.JOB: "'', ''", Split.NODE: "node, ''", Split.DEVICE: "node, CAST(gpu AS VARCHAR)"}[split]
        with self.lock:
            return self.database.execute(
                f"""
                SELECT {keys}, cell // {joined} AS joined, sum({name}_sum) / sum({name}_n), min({name}_low),
                    max({name}_high), CAST(sum({name}_n) AS BIGINT)
                FROM over_time
                WHERE cell >= $first AND cell < $last AND (len($nodes) = 0 OR list_contains($nodes, node))
                GROUP BY ALL HAVING sum({name}_n) > 0 ORDER BY ALL
                """,  # noqa: S608 - same
                {
                    "first": (interval.start_ns - self.start_ns) // self.width_ns,
                    "last": -((self.start_ns - interval.end_ns) // self.width_ns),
                    "nodes": list(nodes),
                },
            ).fetchall()

    def saturation(
        self, rows: Sequence[tuple[str, str]], split: Split, *, lowest: bool = False
    ) -> dict[str, list[float | None]]:
        """Return the saturation over time of each row of a picture; `rows` are (line, row), lines named as in `split`.

        With `lowest` it is that of the row's lowest line at each moment, else their mean.
        """
        line = "node" if split is Split.NODE else "node || ':' || gpu"
        folded = "min(score_sum / score_n)" if lowest else "sum(score_sum) / sum(score_n)"
        with self.lock:
            self.database.execute(
                "CREATE OR REPLACE TEMP TABLE pictured AS SELECT unnest(?) AS line, unnest(?) AS picture",
                [[line for line, _ in rows], [row for _, row in rows]],
            )
            found = self.database.execute(
                f"""
                WITH lines AS (
                    SELECT {line} AS line, cell, sum(score_sum) AS score_sum, sum(score_n) AS score_n FROM over_time
                    GROUP BY ALL HAVING sum(score_n) > 0
                ) SELECT picture, cell, {folded} FROM lines JOIN pictured USING (line) GROUP BY ALL
                """  # noqa: S608 - same
            ).fetchall()
        count = max((cell for _, cell, _ in found), default=-1) + 1
        cells: dict[str, list[float | None]] = {row: [None] * count for _, row in rows}
        for row, cell, score in found:
            cells[row][cell] = score
        return cells


def _gpu_score(node: str, gpu: Gpu, row: dict[str, Any], period_s: float, until_s: float) -> GpuScore:
    seen = row.get("observed") or 0.0

    def mean(name: str, count: str = "observed") -> float | None:
        return row[name] / row[count] if row and row[name] is not None and row[count] else None

    totals = GpuTotals(
        seen * period_s,
        (row.get("saturated") or 0.0) * period_s,
        (row.get("busy") or 0.0) * period_s,
        row.get("peak_busy") or 0.0,
    )
    return GpuScore(
        node=node,
        index=gpu.index,
        uuid=gpu.uuid,
        model=gpu.model,
        coverage_ratio=min(1.0, totals.observed_s / until_s) if until_s > 0 else 0.0,
        score=totals.score,
        compute=mean("compute"),
        memory=mean("memory"),
        network=mean("network", "network_n"),
        sm_active=mean("sm", "sm_n"),
        used=totals.used,
        power_w=mean("power", "power_n"),
        memory_used_bytes=row.get("used_bytes"),
        temperature_c=row.get("temperature"),
        throttled_s=(row.get("throttled") or 0.0) * period_s,
        totals=totals,
    )
