"""SQL that users type, over one logbook: read-only, limited in time, memory and rows, without any other file.

It runs in a process of its own, which limits itself before it opens anything: DuckDB's own memory limit does not count
every allocation, and a process can always be ended.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from piolet.core.errors import ParseError, PioletError, ToolError, ToolTimeout, UsageError
from piolet.core.run import SystemRunner
from piolet.logbook import reader
from piolet.logbook.layout import Logbook
from piolet.logbook.schema import FAMILIES
from piolet.logbook.units import unit
from piolet.watch.book import Book

if TYPE_CHECKING:
    import duckdb

_EXPLAINED = 4
"""Exit status of the process when it says on stdout why the query failed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a query may use: wall-clock seconds, bytes beyond what DuckDB itself takes, rows returned."""

    time_s: float = 10.0
    memory_bytes: int = 512 << 20
    rows: int = 10_000


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of a query; `truncated` if there were more. `units` has those of columns named as in the schema.

    `coverage` is the share of the expected samples that is there of each family that the query reads, if it is known.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool
    coverage: Mapping[str, float] = field(default_factory=dict)

    @property
    def units(self) -> dict[str, str]:
        """The unit of each column whose name tells it."""
        return {name: found for name in self.columns if (found := unit(name))}


def ask(book: Book, query: str, limits: Limits = Limits()) -> Answer:
    """Run one SELECT over the views of a job.

    Raises:
        UsageError: it is no single SELECT, it is wrong, or it went beyond a limit.
    """
    asked = json.dumps(
        {"path": str(book.logbook.path), "owner": book.grant.job.owner, "query": query, "limits": asdict(limits)}
    )
    argv = [sys.executable, "-m", "piolet.watch.console"]
    try:
        done = SystemRunner().run(argv, timeout=limits.time_s, stdin=asked, ok=(0, _EXPLAINED))
    except ToolTimeout as error:
        remedy = "restrict time_ns or node, or aggregate more"
        raise UsageError(f"the query took longer than {limits.time_s:g} s", remedy=remedy) from error
    except ToolError as error:
        remedy = "aggregate more, or select fewer columns"
        raise UsageError(f"the query needed more than {limits.memory_bytes >> 20} MiB", remedy=remedy) from error
    if done.rc == _EXPLAINED:
        raise UsageError(f"the query cannot be run: {done.stdout.strip()}", remedy="see `piolet watch schema`")
    return _parse(done.stdout, book.coverage)


def _parse(text: str, coverage: Callable[[str], float | None]) -> Answer:
    try:
        found = json.loads(text)
        rows, read = tuple(tuple(row) for row in found["rows"]), FAMILIES.keys() & set(found["tables"])
        shares = {name: share for name in sorted(read) if (share := coverage(name)) is not None}
        return Answer(tuple(found["columns"]), rows, found["truncated"], shares)
    except (ValueError, KeyError) as error:
        raise ParseError("not the answer of a query", source="piolet.watch.console", text=text) from error


def main() -> int:
    """Answer the query on stdin; what is wrong with it goes to stdout with its own exit status."""
    import duckdb  # noqa: PLC0415 - the limits below count from what is loaded

    asked = json.load(sys.stdin)
    limits = Limits(**asked["limits"])
    try:
        select = only_select(asked["query"])
        opened = reader.read(Logbook(Path(asked["path"])), owner=asked["owner"], config=_config(limits))
        _confine(opened, limits)
        tables = tables_of(opened.database, asked["query"])
        result = opened.database.execute(select)
        rows = result.fetchmany(limits.rows + 1)
    except (duckdb.Error, PioletError) as error:
        sys.stdout.write(str(error))
        return _EXPLAINED
    columns = [column[0] for column in result.description or ()]
    answer = {"columns": columns, "rows": rows[: limits.rows], "truncated": len(rows) > limits.rows, "tables": tables}
    json.dump(answer, sys.stdout, default=str)
    return 0


def only_select(query: str) -> Any:  # noqa: ANN401 - a statement of DuckDB
    """Return the one SELECT that a text is; UsageError if it is anything else."""
    import duckdb  # noqa: PLC0415 - as above

    statements = duckdb.extract_statements(query)
    if len(statements) != 1 or statements[0].type not in {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}:
        raise UsageError("give one SELECT")
    return statements[0]


def tables_of(database: duckdb.DuckDBPyConnection, query: str) -> list[str]:
    """Return the tables that a SELECT names, by DuckDB's own parser; none of an EXPLAIN."""
    found = database.execute("SELECT json_serialize_sql(?::VARCHAR, skip_null := true)", [query]).fetchall()
    return re.findall(r'"type":"BASE_TABLE".*?"table_name":"(\w+)"', str(found[0][0]))


def _config(limits: Limits) -> dict[str, Any]:
    return {"memory_limit": f"{limits.memory_bytes // 2}B", "threads": 1, "temp_directory": ""}


def _confine(opened: reader.Reader, limits: Limits) -> None:
    """Leave the query nothing but the logbook's own segments, and no way to change that."""
    allowed = ", ".join("'" + str(path).replace("'", "''") + "'" for path in opened.paths)
    for setting in (
        "python_enable_replacements = false",
        f"allowed_paths = [{allowed}]",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        opened.database.execute(f"SET {setting}")
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    most = used + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    seconds = int(limits.time_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


if __name__ == "__main__":
    sys.exit(main())
