"""Answers about logbooks: computed once for everybody, kept until the logbook changes, and one that failed is not."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import event_loops
import made_logbooks
import pytest

from piolet.core.errors import UsageError
from piolet.logbook.records import write_job
from piolet.watch import Archive, Viewer
from piolet.watch.access import Grant
from piolet.watch.book import Book
from piolet.web.kept import Kept


@pytest.fixture
def grant(tmp_path: Path) -> Grant:
    record = made_logbooks.job()
    made_logbooks.write(tmp_path, record, made_logbooks.constant(record, 5, sm_active=0.5))
    with Archive(tmp_path).seen_by(Viewer("ada")).open("lab", "4711") as book:
        return book.grant


def changed(grant: Grant) -> None:
    write_job(grant.job.logbook.job, made_logbooks.job(name="another"))


def test_many_who_ask_get_one_answer(grant: Grant) -> None:
    asked, go = [], threading.Event()

    def rows(book: Book) -> int:
        asked.append(book)
        go.wait()
        return book.reader.database.execute("SELECT count(*) FROM gpu").fetchall()[0][0]

    async def ask() -> list[int | None]:
        kept = Kept()
        waiting = [asyncio.ensure_future(kept.answer(grant, rows)) for _ in range(20)]
        await asyncio.sleep(0)
        go.set()
        return [answer.value for answer in await asyncio.gather(*waiting)]

    assert event_loops.run(ask()) == [5] * 20
    assert len(asked) == 1


def test_a_changed_logbook_is_asked_anew_and_the_old_answer_stands_in(grant: Grant) -> None:
    go = threading.Event()
    go.set()

    def name(book: Book) -> str:
        go.wait()
        return book.job.name

    async def ask() -> None:
        kept = Kept()
        first = await kept.answer(grant, name)
        assert (first.value, bool(first.stamp)) == ("first-climb", True)
        go.clear()
        changed(grant)
        assert await kept.answer(grant, name, 0.0) == type(first)("first-climb", "")
        go.set()
        second = await kept.answer(grant, name)
        assert second.value == "another"
        assert second.stamp not in {"", first.stamp}

    event_loops.run(ask())


def test_a_job_that_is_too_large_is_one_clear_error(grant: Grant) -> None:
    def huge(book: Book) -> str:
        book.reader.database.execute("SET memory_limit = '20MB'")
        return book.reader.database.execute("SELECT list(range) FROM range(50000000)").fetchall()[0][0]

    with pytest.raises(UsageError, match="do not fit into the 2GB that a page is given"):
        event_loops.run(Kept().answer(grant, huge))


def test_an_answer_that_failed_is_asked_again(grant: Grant) -> None:
    failures = iter([UsageError("not now")])

    def moody(book: Book) -> str:
        for failure in failures:
            raise failure
        return book.job.user

    async def ask() -> str | None:
        kept = Kept()
        with pytest.raises(UsageError, match="not now"):
            await kept.answer(grant, moody)
        return (await kept.answer(grant, moody)).value

    assert event_loops.run(ask()) == "ada"
