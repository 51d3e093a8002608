"""Watch: what jobs did and do, asked as questions. Every answer is restricted to its viewer and says how good it is.

archive = Archive(root)                     all logbooks below a root
jobs = archive.seen_by(Viewer("ada"))       nothing leads from here to another's job
jobs.find(JobFilter(state="RUNNING"))       the list
with jobs.open("alps", "4711") as book:     one job
    book.series(Metric("gpu", "power_w"))   down-sampled, peaks kept
    book.quality()                          what is missing
    book.findings()                         what diagnosis concluded
"""

from __future__ import annotations

from piolet.watch.access import Grant, Viewer
from piolet.watch.archive import Archive, JobFilter, JobPage, VisibleJobs
from piolet.watch.book import Book
from piolet.watch.jobs import JobSummary
from piolet.watch.series import Line, Metric, Series, Split

__all__ = [
    "Archive",
    "Book",
    "Grant",
    "JobFilter",
    "JobPage",
    "JobSummary",
    "Line",
    "Metric",
    "Series",
    "Split",
    "Viewer",
    "VisibleJobs",
]
