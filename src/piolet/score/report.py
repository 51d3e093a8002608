"""The report: one self-contained page per logbook."""

from __future__ import annotations

from pathlib import Path

from piolet.logbook.layout import Logbook


def write_report(logbook: Logbook, path: Path | None = None) -> Path:
    """Write the report of `logbook` to `path` (default: report.html in the logbook) and return where it is."""
    return path or logbook.report
