"""The rows of a family as they are written, for whoever follows a job while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from piolet.logbook import segments
from piolet.logbook.layout import Logbook
from piolet.logbook.schema import FAMILIES


class Tail:
    """Gives each row of a family once or, where segments were merged meanwhile, now and then twice.

    The first of `columns` is the time.
    """

    def __init__(self, logbook: Logbook, family: str, columns: tuple[str, ...]) -> None:
        self._directory = logbook.family(family)
        self._family = FAMILIES[family]
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
        return sorted(self._rows([each.path for each in readable]), key=lambda row: row[0] or 0)

    def _rows(self, paths: list[Path]) -> list[tuple[Any, ...]]:
        """Return the rows of files; those of a file that cannot be read are left out."""
        import duckdb  # noqa: PLC0415 - slow to import, and most calls find nothing

        from piolet.logbook import reader  # noqa: PLC0415 - same

        try:
            with duckdb.connect(":memory:") as database:
                reader.view(database, self._family, paths)
                return database.execute(f'SELECT {self._columns} FROM "{self._family.name}"').fetchall()  # noqa: S608
        except duckdb.Error:
            return [] if len(paths) == 1 else [row for path in paths for row in self._rows([path])]
