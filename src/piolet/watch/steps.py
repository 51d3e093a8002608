"""How fast a program steps, from the steps that it reports: `step` of the family `user`."""

from __future__ import annotations

from piolet.logbook.reader import Reader

REPORTS = """
    SELECT rank, step, min(time_ns) AS time_ns FROM user WHERE step IS NOT NULL GROUP BY rank, step
"""
"""When each rank first reported each step."""

LEAST = 10
"""Fewer steps say nothing."""


def median_s(reader: Reader) -> float | None:
    """Return the median of the seconds of a step, None of a program that reports too few."""
    found = reader.database.execute(
        f"""
        SELECT median(seconds), count(*) FROM (
            SELECT (time_ns - lag(time_ns) OVER line) / 1e9 / (step - lag(step) OVER line) AS seconds
            FROM ({REPORTS}) WINDOW line AS (PARTITION BY rank ORDER BY time_ns)
        ) WHERE seconds > 0
        """  # noqa: S608 - a constant
    ).fetchall()[0]
    return float(found[0]) if found[1] >= LEAST else None
