"""Digests: what they keep is what was recorded, however it was written, merged and folded; no peak is lost."""

from __future__ import annotations

import random
from pathlib import Path

import made_logbooks
import pytest

from piolet.core.nouns import Interval
from piolet.logbook import merging
from piolet.logbook.layout import Logbook
from piolet.logbook.records import JobRecord, write_job
from piolet.logbook.writer import SegmentWriter
from piolet.score import score_job
from piolet.score.model import factorise
from piolet.watch import Book, Metric, Split, archive
from piolet.web import digest
from piolet.web.digest import Digest

POWER = Metric("gpu", "power_w")
NODES = ["node1", "node2", "node3"]
SECONDS = 40


class Growing:
    """A job that runs, whose nodes flush when they are told to; what it does comes from a seed."""

    def __init__(self, root: Path, gpus: int = 2) -> None:
        self.chance = random.Random(4711)  # noqa: S311 - noise
        self.record: JobRecord = made_logbooks.job(NODES, gpus, SECONDS, program_ended_ns=None)
        self.logbook: Logbook = made_logbooks.write(root, self.record, [])
        self.writers = {node: SegmentWriter(self.logbook, node) for node in NODES}

    def sample(self, seconds: range, nodes: list[str] = NODES) -> None:
        for node in nodes:
            for second in seconds:
                for index in range(len(self.record.gpus) // len(NODES)):
                    values = {"sm_active": 0.5, "tensor_active": self.chance.random(), "dram_active": 0.3}
                    power = 5000.0 if (node, second) == ("node2", 17) else 400.0
                    row = made_logbooks.row(node, index, second + 0.5, power_w=power, **values)
                    self.writers[node].append("gpu", row)
            self.writers[node].flush()

    def end(self) -> None:
        self.record = made_logbooks.job(NODES, len(self.record.gpus) // len(NODES), SECONDS)
        write_job(self.logbook.job, self.record)

    def book(self) -> Book:
        return archive.open_logbook(self.logbook)

    def begun(self) -> Digest:
        with self.book() as book:
            found = Digest.begun(book.logbook, book.grant.job.owner, book.job)
            assert found
            return found

    def refresh(self, found: Digest) -> None:
        with self.book() as book:
            found.refresh(book.logbook, book.grant.job.owner)


@pytest.fixture
def growing(tmp_path: Path) -> Growing:
    return Growing(tmp_path)


def kept(found: Digest, split: Split = Split.NODE) -> object:
    return found.series(POWER, found.interval, split, points=1000)


def test_what_is_kept_is_what_was_recorded(growing: Growing) -> None:
    growing.sample(range(SECONDS))
    growing.end()
    found = growing.begun()
    growing.refresh(found)
    with growing.book() as book:
        for split in Split:
            assert kept(found, split) == book.series(POWER, split=split, points=1000)
        score = score_job(book.reader, book.job)
    scores = found.gpu_scores()
    assert [gpu.score for gpu in scores] == pytest.approx([gpu.score for gpu in score.gpus])
    assert [gpu.coverage_ratio for gpu in scores] == [gpu.coverage_ratio for gpu in score.gpus]
    assert factorise([gpu.totals for gpu in scores]) == pytest.approx(score.factors)


def test_a_digest_that_grew_is_one_that_was_made_at_once(growing: Growing) -> None:
    growing.sample(range(10))
    grown = growing.begun()
    growing.refresh(grown)
    growing.sample(range(10, 20), ["node1"])
    growing.refresh(grown)
    growing.refresh(grown)
    growing.sample(range(10, 30), ["node2", "node3"])
    merging.merge_node(growing.logbook, "node1")  # covers what is folded
    merging.merge_node(growing.logbook, "node2")  # covers more than that
    growing.refresh(grown)
    at_once = growing.begun()
    growing.refresh(at_once)
    assert kept(grown) == kept(at_once)
    assert grown.gpu_scores() == at_once.gpu_scores()


def test_a_long_job_has_longer_stretches_and_every_peak(growing: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "MOST_STRETCHES", 8)
    monkeypatch.setattr(digest, "FEWEST_STRETCHES", 1)
    growing.sample(range(4))
    found = growing.begun()
    for first in range(4, SECONDS, 4):
        growing.refresh(found)
        growing.sample(range(first, first + 4))
    growing.refresh(found)
    assert found.width_ns == 8 * 10**9
    series = found.series(POWER, found.interval, Split.JOB, points=3)
    assert len(series.lines[0].times_ns) == 3
    assert max(series.lines[0].high) == pytest.approx(5000.0, rel=2**-8)
    assert sum(series.lines[0].samples) == SECONDS * len(growing.record.gpus)
    later = Interval(found.start_ns + 24 * 10**9, found.interval.end_ns)
    assert max(found.series(POWER, later, Split.JOB, ["node2"], points=100).lines[0].high) == 400.0


def test_the_lowest_line_of_a_row_is_seen(growing: Growing) -> None:
    growing.sample(range(3))
    found = growing.begun()
    growing.refresh(found)
    rows = [(node, "all") for node in NODES]
    mean, lowest = (found.saturation(rows, Split.NODE, lowest=each)["all"] for each in (False, True))
    assert all(low < middle for low, middle in zip(lowest, mean, strict=True) if low is not None and middle is not None)


def test_nothing_is_nothing(growing: Growing) -> None:
    with growing.book() as book:
        assert Digest.begun(book.logbook, book.grant.job.owner, book.job) is None
