"""The rows of a family as they are written, for whoever follows a job while it runs."""

from __future__ import annotations

from typing import Any

from piolet.logbook import segments
from piolet.logbook.layout import Logbook


class Tail:
    """Gives each row of a family once or, where segments were merged meanwhile, now and then twice.

    The first of `columns` is the time.
    """

    def __init__(self, logbook: Logbook, family: str, columns: tuple[str, ...]) -> None:
        self._directory = logbook.family(family)
        self._columns = ", ".join(f'"{column}"' for column in columns)
        self._seen: dict[str, int] = {}

    def new(self) -> list[tuple[Any, ...]]:
        """Return what was written since the last call, in the order of time."""
        fresh = [each for each in segments.all_segments(self._directory) if each.last > self._seen.get(each.node, 0)]
        readable = [each for each in fresh if each.intact()]
        if not readable:
            return []
        for segment in readable:
            self._seen[segment.node] = max(segment.last, self._seen.get(segment.node, 0))
        return sorted(self._rows([str(each.path) for each in readable]), key=lambda row: row[0] or 0)

    def _rows(self, paths: list[str]) -> list[tuple[Any, ...]]:
        """Return the rows of files; those of a file that cannot be read are left out."""
        import duckdb  # noqa: PLC0415 - slow to import, and most calls find nothing

        query = f"SELECT {self._columns} FROM read_parquet($paths)"  # noqa: S608 - names of columns
        try:
            with duckdb.connect(":memory:") as database:
                return database.execute(query, {"paths": paths}).fetchall()
        except duckdb.Error:
            return [] if len(paths) == 1 else [row for path in paths for row in self._rows([path])]
