"""How well a job used its GPUs: the saturation score, its factors, the bottleneck, and the report.

    with read(logbook) as reader:
        score = score_job(reader, job)      # JobScore: numbers only
    summary_lines(logbook)                  # a few plain lines for the end of a run
    write_report(logbook)                   # report.html, self-contained

Reads logbooks and writes nothing but the report.
"""

from __future__ import annotations

from piolet.score.job import score_job
from piolet.score.model import Bottleneck, Factors, GpuScore, JobScore, Label
from piolet.score.report import write_report
from piolet.score.terminal import summary_lines

__all__ = [
    "Bottleneck",
    "Factors",
    "GpuScore",
    "JobScore",
    "Label",
    "score_job",
    "summary_lines",
    "write_report",
]
