"""A job that runs: a logbook without an outcome, whose samples are of now."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import made_logbooks
from metric_stores import Samples

from piolet.logbook.layout import Logbook
from piolet.logbook.writer import SegmentWriter
from piolet.watch import archive
from piolet.watch.export import exposition

NODES, GPUS = ("node1", "node2"), 2


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A logbook without an outcome, whose samples are of now."""

    logbook: Logbook
    writers: dict[str, SegmentWriter] = field(default_factory=dict)

    def sample(self) -> int:
        """One more sample of everything; returns its time."""
        now_ns = time.time_ns()
        for node in NODES:
            writer = self.writers.setdefault(node, SegmentWriter(self.logbook, node))
            for gpu in range(GPUS):
                row = made_logbooks.row(
                    node, gpu, 0, sm_active=0.5 + gpu / 7, power_w=300 + now_ns % 97, energy_j=now_ns // 10**6
                )
                writer.append("gpu", row | {"time_ns": now_ns + gpu * 1_000_000})
            writer.append("host", {"time_ns": now_ns, "node": node, "cpu_busy_ratio": 0.25})
            loss = {"time_ns": now_ns, "node": node, "rank": 0, "name": 'the "loss"', "value": 2.5}
            writer.append("user", loss)
            writer.flush()
        return now_ns

    def open(self) -> archive.Book:
        return archive.open_logbook(self.logbook)

    def text(self) -> str:
        with self.open() as book:
            return exposition(book, time.time_ns())

    def raw(self, column: str) -> Samples:
        with self.open() as book:
            rows = book.table("gpu").relation.project(f"node, gpu, time_ns // 1000000, {column}").fetchall()
        found: Samples = {}
        for node, gpu, time_ms, value in rows:
            found.setdefault((node, str(gpu)), {})[time_ms] = value
        return found


def made(root: Path) -> RunningJob:
    record = made_logbooks.job(NODES, GPUS, account="climate")
    return RunningJob(made_logbooks.write(root, replace(record, program_ended_ns=None), []))
