"""The samples of a family, lazily: as a DuckDB relation, a polars or a pandas frame, with units and coverage."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import duckdb

from piolet.core.errors import ToolMissing, UsageError
from piolet.core.text import did_you_mean
from piolet.logbook.schema import FAMILIES, Family
from piolet.logbook.units import unit


@dataclass(frozen=True, slots=True)
class Table:
    """All samples of a family. `relation` reads nothing until it is asked for rows."""

    relation: duckdb.DuckDBPyRelation
    family: Family
    coverage: Callable[[str], float | None]

    @property
    def units(self) -> dict[str, str]:
        """The unit of every column that has one."""
        return {name: found for name in self.family.names if (found := unit(name))}

    @property
    def meanings(self) -> dict[str, str]:
        """What every column holds."""
        return self.family.meanings

    @property
    def coverage_ratio(self) -> float | None:
        """Share of the expected samples that is there, None if nobody knows what to expect."""
        return self.coverage(self.family.name)

    def where(self, condition: str) -> Table:
        """Return the rows for which an SQL condition holds, such as ``gpu = 0 AND power_w > 500``."""
        return Table(self.relation.filter(condition), self.family, self.coverage)

    def polars(self) -> Any:  # noqa: ANN401 - polars.DataFrame, which may not be installed
        """Return the rows as a polars frame."""
        _need("polars", "pyarrow")
        return self.relation.pl()

    def pandas(self) -> Any:  # noqa: ANN401 - pandas.DataFrame, which may not be installed
        """Return the rows as a pandas frame, with the units and the coverage in its `attrs`."""
        _need("pandas")
        frame = self.relation.df()
        frame.attrs |= {"units": self.units, "coverage_ratio": self.coverage_ratio}
        return frame


def family_rows(name: str) -> list[tuple[str, str, str, str]]:
    """Return (column, type, unit, meaning) of a family.

    Raises:
        UsageError: there is no such family.
    """
    if name not in FAMILIES:
        raise UsageError(f"no family {name}", remedy=did_you_mean(name, FAMILIES))
    return [(column.name, column.kind, unit(column.name), column.meaning) for column in FAMILIES[name].columns]


def _need(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ToolMissing(package, remedy=f"pip install {' '.join(packages)}, or pip install 'piolet[frames]'")
