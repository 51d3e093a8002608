"""Which images of the store may go: by when they were last asked for, and by size. Choosing is pure.

An image that a living job may use stays: one that was asked for after the oldest living job was submitted, or up to
an hour before, since a plan is compiled right before its job is submitted. So does one that the logbook of a job names
which has not ended, for hosts where Slurm cannot be asked. Lock files of EDFs keep nothing: they can be anywhere, and
an image that one names is asked for, and so young, whenever it is used.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from piolet.core.errors import ParseError, PioletError, StorageError, ToolMissing
from piolet.core.files import read_json
from piolet.core.run import Runner
from piolet.env.store import Store, Stored
from piolet.logbook.layout import Logbook
from piolet.tools.slurm import squeue

SUBMITTED_WITHIN_S = 3600.0
UNFINISHED_S = 86400.0
"""Age after which what an import left is nobody's any more; the longest import is far shorter."""
LONGEST_JOB_S = 30 * 86400.0
"""Age after which a logbook without an end is one of a job that was lost."""
_LIVING = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "STOPPED")


@dataclass(frozen=True, slots=True)
class Limits:
    """Images asked for within `keep_s` seconds stay; of the others, the longest unused go until `most_bytes` hold."""

    keep_s: float
    most_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Jobs:
    """What is known of living jobs: when the oldest was submitted (Unix seconds), and digests that logbooks name."""

    oldest_s: float | None = None
    digests: frozenset[str] = frozenset()


def choose(images: Sequence[Stored], limits: Limits, now_s: float, jobs: Jobs) -> tuple[Stored, ...]:
    """Return the images to remove, the longest unused first."""
    kept_from_s = now_s - limits.keep_s
    if jobs.oldest_s is not None:
        kept_from_s = min(kept_from_s, jobs.oldest_s - SUBMITTED_WITHIN_S)
    free = (image for image in images if image.used_s < kept_from_s and image.digest not in jobs.digests)
    unused = sorted(free, key=lambda image: image.used_s)
    if limits.most_bytes is None:
        return tuple(unused)
    excess, chosen = sum(image.size_bytes for image in images) - limits.most_bytes, []
    for image in unused:
        if excess <= 0:
            break
        chosen.append(image)
        excess -= image.size_bytes
    return tuple(chosen)


def oldest_job_s(runner: Runner) -> float | None:
    """Return when the oldest living job was submitted, in Unix seconds; None if there is none, or no Slurm.

    Raises:
        PioletError: Slurm is there and does not answer: then nobody knows what jobs use.
    """
    try:
        jobs = squeue.jobs(runner, states=_LIVING)
    except ToolMissing:
        return None
    submitted = [job.submit_ns for job in jobs if job.submit_ns is not None]
    if len(submitted) != len(jobs):
        raise PioletError("Slurm does not say when a job was submitted", remedy="try again")
    return min(submitted) / 1e9 if submitted else None


def digests_of_jobs(root: Path, now_s: float) -> frozenset[str]:
    """Return the digests of images that jobs below the root of logbooks are using, as far as their logbooks say."""
    found = set()
    for path in root.glob("*/*/environment.lock.json"):
        if Logbook(path.parent).outcome.exists() or now_s - _changed_s(path) > LONGEST_JOB_S:
            continue
        try:
            found.add(read_json(path)["image"]["digest"])
        except (ParseError, StorageError, KeyError, TypeError):
            continue
    return frozenset(found - {None})


def clear_leftovers(store: Store, now_s: float, keep_s: float) -> int:
    """Remove layers that no import has used for `keep_s`, and what unfinished imports left; return the bytes."""
    freed = 0
    ages_s = {store.blobs: max(keep_s, UNFINISHED_S), store.root / "work": UNFINISHED_S, store.claims: UNFINISHED_S}
    for directory, age_s in ages_s.items():
        for path in directory.glob("*") if directory.is_dir() else ():
            if now_s - _changed_s(path) > age_s:
                freed += _size(path)
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return freed


def now() -> float:
    """Return the time in Unix seconds."""
    return time.time()


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
