"""Which images go: never one that a living job may use."""

from pathlib import Path

import pytest

from piolet.core.errors import ToolMissing
from piolet.env.cleaning import Jobs, Limits, choose, clear_leftovers, oldest_job_s
from piolet.env.store import Stored, record

DAY = 86400.0
NOW = 100 * DAY


def image(name, used_days_ago, size=10):
    return Stored(name, name, "x86_64", (), "", size, 0.0, Path(), NOW - used_days_ago * DAY)


IMAGES = (image("new", 1), image("old", 40), image("older", 50), image("oldest", 60))


@pytest.mark.parametrize(
    ("limits", "oldest_job_days_ago", "gone"),
    [
        (Limits(30 * DAY), None, ["oldest", "older", "old"]),
        (Limits(30 * DAY, most_bytes=25), None, ["oldest", "older"]),
        (Limits(30 * DAY, most_bytes=40), None, []),
        (Limits(0.0), None, ["oldest", "older", "old", "new"]),
        (Limits(30 * DAY), 45, ["oldest", "older"]),
        (Limits(30 * DAY), 50 - 1 / 48, ["oldest"]),
        (Limits(0.0), 90, []),
    ],
)
def test_choice(limits, oldest_job_days_ago, gone):
    oldest = None if oldest_job_days_ago is None else NOW - oldest_job_days_ago * DAY
    assert [found.name for found in choose(IMAGES, limits, NOW, Jobs(oldest))] == gone


def test_without_slurm_there_are_no_jobs():
    class Nothing:
        def run(self, argv, **_):
            raise ToolMissing(argv[0])

    assert oldest_job_s(Nothing()) is None


def test_leftovers_go_when_they_are_old(home):
    store = home.store
    for name in ("blobs/old", "work/dead/1.tar"):
        (store.root / name).parent.mkdir(parents=True, exist_ok=True)
        (store.root / name).write_bytes(b"12345")
    now = (store.root / "blobs/old").stat().st_mtime
    assert clear_leftovers(store, now + 3600, 0) == 0
    assert clear_leftovers(store, now + 2 * DAY, 0) == 10
    assert not list((store.root / "work").iterdir())


def test_the_time_of_use_is_the_stores_own(home):
    made = home.path / "root/images/work/x/packed"
    made.parent.mkdir(parents=True)
    made.write_bytes(b"hsqs")
    stored = home.store.publish(made, record("sha256:1", "n", "x86_64"))
    assert stored.used_s == stored.imported_s
    home.store.note_use(stored.digest)
    used = home.store.image(stored.digest)
    assert used.used_s >= stored.used_s
    home.environ["PATH"] = "/nonexistent"  # nor is Slurm there
    assert home.run("gc").stdout == "freed 0.00 GB\n"
    book = home.path / "root/lab/17"
    book.mkdir(parents=True)
    (book / "environment.lock.json").write_text('{"image": {"digest": "sha256:1"}}')
    (book.parent / "18").mkdir()
    (book.parent / "18/environment.lock.json").write_text('{"image": {"digest": null}, "half')
    assert home.run("gc", "--keep-days", "0").stdout == "freed 0.00 GB\n"  # a job that has not ended is using it
    (book / "outcome.json").write_text("{}")
    assert "removed n" in home.run("gc", "--keep-days", "0").stdout
    assert home.store.images() == ()


def test_nothing_goes_when_slurm_does_not_answer(home):
    squeue = home.path / "bin/squeue"
    squeue.parent.mkdir()
    squeue.write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    squeue.chmod(0o755)
    home.environ["PATH"] = str(squeue.parent)
    done = home.run("gc", "--keep-days", "0")
    assert (done.returncode, done.stdout) == (3, "")
