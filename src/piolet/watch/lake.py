"""SQL over the logbooks of all jobs of a cluster: here with DuckDB, or, in the same words, on a ClickHouse cluster.

A query is written once, in DuckDB's SQL. sqlglot says it in ClickHouse's; a test runs every query of the catalogue on
both engines over the same files. The tables are the families, with the job beside, and the roll-ups.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from piolet.core.errors import ToolMissing, UsageError
from piolet.core.text import did_you_mean
from piolet.logbook import segments
from piolet.logbook.schema import FAMILIES
from piolet.watch.console import Answer, only_select, tables_of
from piolet.watch.rollups import ROLLUPS

if TYPE_CHECKING:
    from sqlglot import exp

FILES = "file('{path}', Parquet, '{structure}')"
"""ClickHouse's table function for files that its servers see; others are s3Cluster and hdfsCluster."""

MOST_ROWS = 10_000
_CONFIG: dict[str, Any] = {"memory_limit": "4GB", "threads": 2, "temp_directory": ""}
_SETTINGS = "\nSETTINGS prefer_column_name_to_alias = 1"
"""A name in a condition or an aggregate is the column's, as in DuckDB, and not that of what is selected."""

_KINDS = {
    "BIGINT": "Int64",
    "INTEGER": "Int32",
    "DOUBLE": "Float64",
    "FLOAT": "Float32",
    "VARCHAR": "String",
    "BOOLEAN": "Bool",
}

CATALOGUE: Mapping[str, tuple[str, str]] = {
    "busy-hours": (
        "GPUs with a job in each hour, how active they were and what power they drew",
        """SELECT time_ns, count(*) AS gpus, avg(sm_active_ratio) AS sm_active_ratio, sum(power_w) AS power_w
        FROM gpu_1h GROUP BY time_ns ORDER BY time_ns""",
    ),
    "accounts": (
        "GPU-hours of each account, and how active its GPUs were",
        """SELECT account, sum(samples) / 3600.0 AS gpu_hours_at_1hz, sum(sm_active_ratio * samples) / sum(samples)
            AS sm_active_ratio FROM gpu_1h GROUP BY account ORDER BY account""",
    ),
    "idle-gpus": (
        "jobs whose GPUs did least",
        """SELECT job, user_name, count(DISTINCT node) AS nodes, avg(sm_active_ratio) AS sm_active_ratio
        FROM gpu_1h GROUP BY job, user_name HAVING avg(sm_active_ratio) < 0.2
        ORDER BY 4, job LIMIT 100""",
    ),
    "slow-nodes": (
        "nodes whose GPUs run at lower clocks than the fleet's while they have work",
        """WITH nodes AS (
            SELECT node, avg(sm_clock_hz) AS clock_hz, max(temperature_c_high) AS hottest_c FROM gpu_1h
            WHERE gr_engine_active_ratio > 0.5 GROUP BY node
        ), fleet AS (SELECT median(clock_hz) AS usual_hz FROM nodes)
        SELECT node, clock_hz / usual_hz AS clock_ratio, hottest_c FROM nodes CROSS JOIN fleet
        WHERE clock_hz < 0.97 * usual_hz ORDER BY clock_ratio, node""",
    ),
    "throttled": (
        "GPUs that heat slowed down, by hours",
        """SELECT node, gpu, count(*) AS hours, max(temperature_c_high) AS hottest_c FROM gpu_1h
        WHERE throttled_ratio > 0.01 GROUP BY node, gpu ORDER BY hours DESC, node, gpu LIMIT 100""",
    ),
    "io-waits": (
        "minutes in which most nodes waited for I/O",
        """SELECT time_ns // 60000000000 AS minute, count(*) AS nodes,
            quantile_cont(io_pressure_ratio, 0.9) AS p90_ratio FROM host_1m
        GROUP BY minute HAVING quantile_cont(io_pressure_ratio, 0.5) > 0.2 ORDER BY minute""",
    ),
    "errors": (
        "what the drivers reported, by node and code",
        """SELECT node, code, count(*) AS events, count(DISTINCT job) AS jobs, min(time_ns) AS first_ns FROM events
        WHERE kind = 'xid' GROUP BY node, code ORDER BY events DESC, node, code""",
    ),
    "power-of-jobs": (
        "mean and highest power of each job, from all samples",
        """SELECT job, avg(power_w) AS power_w, max(power_w) AS highest_w, count(*) AS samples FROM gpu
        GROUP BY job ORDER BY job""",
    ),
}
"""Questions by name: what each answers, and its SQL."""


@dataclass(frozen=True, slots=True)
class Source:
    """A table: the files that it is made of, relative to the root, and its columns with their types.

    `job_part` is which part of a path, from its end, is the job; 0 if the files have a column for it.
    """

    pattern: str
    columns: tuple[tuple[str, str], ...]
    job_part: int = 0


def sources(cluster: str) -> dict[str, Source]:
    """Return every table by name. Families have the column `job`, which their path tells; roll-ups have it inside."""
    families = {
        name: Source(
            f"{cluster}/*/{place}/*.parquet",
            tuple((each.name, each.kind) for each in FAMILIES[name].columns),
            2 + len(place.split("/")),
        )
        for name in FAMILIES
        for place in ["events" if name == "events" else f"telemetry/{name}"]
    }
    rolled = {each.name: Source(f"{cluster}/rollup/{each.name}/*.parquet", each.columns) for each in ROLLUPS}
    return families | rolled


def query_of(text: str) -> str:
    """Return the SQL of a name of the catalogue, or the text itself if it is SQL.

    Raises:
        UsageError: it is one word, and the catalogue has no such question.
    """
    if " " in text.strip():
        return text
    if text not in CATALOGUE:
        raise UsageError(f"no question {text}", remedy=did_you_mean(text, CATALOGUE))
    return CATALOGUE[text][1]


def ask(root: Path, cluster: str, query: str) -> Answer:
    """Run one SELECT over all logbooks below `root` that this process's user may read.

    Raises:
        UsageError: it is no single SELECT, or it is wrong.
    """
    statement = only_select(query)
    with duckdb.connect(":memory:", config=_CONFIG) as database:
        explained = statement.type is duckdb.StatementType.EXPLAIN
        named = sources(cluster) if explained else tables_of(database, query)
        for name, source in sources(cluster).items():
            if name in named:
                database.execute(f'CREATE VIEW "{name}" AS {_in_duckdb(root, source)}')
        database.execute(f"SET allowed_directories = ['{_escaped(str(root))}/']")
        database.execute("SET enable_external_access = false")
        try:
            result = database.execute(statement)
            rows = result.fetchmany(MOST_ROWS + 1)
        except duckdb.Error as error:
            raise UsageError(f"the query cannot be run: {error}", remedy="see `piolet watch lake`") from error
        columns = tuple(column[0] for column in result.description or ())
    return Answer(columns, tuple(rows[:MOST_ROWS]), len(rows) > MOST_ROWS)


def clickhouse(root: str, cluster: str, query: str, *, files: str = FILES) -> str:
    """Return a query as ClickHouse runs it; `files` is the table function that reads the files of a table.

    Raises:
        UsageError: the query is not SQL that sqlglot understands.
        ToolMissing: sqlglot is not installed.
    """
    try:
        import sqlglot  # noqa: PLC0415 - an extra
        from sqlglot import exp  # noqa: PLC0415 - same
    except ImportError as error:
        raise ToolMissing("sqlglot", remedy="pip install 'piolet[lake]'") from error
    try:
        tree = sqlglot.parse_one(query, read="duckdb").transform(_exact)
    except sqlglot.errors.ParseError as error:
        raise UsageError(f"this is not SQL: {error}", remedy="write it as for DuckDB") from error
    own = {each.alias for each in tree.find_all(exp.CTE)}
    known = sources(cluster)
    for table in list(tree.find_all(exp.Table)):
        if table.name in known and table.name not in own:
            inner = sqlglot.parse_one(_in_clickhouse(root, known[table.name], files), read="clickhouse")
            table.replace(exp.Subquery(this=inner, alias=exp.to_identifier(table.alias or table.name)))
    return tree.sql(dialect="clickhouse", pretty=True) + _SETTINGS


def _exact(node: exp.Expression) -> exp.Expression:
    """Say what has no exact counterpart in ClickHouse by functions of its own."""
    from sqlglot import exp  # noqa: PLC0415 - as above

    if isinstance(node, exp.IntDiv):
        return exp.Anonymous(this="intDiv", expressions=[node.this, node.expression])
    if isinstance(node, exp.Median):
        return exp.ParameterizedAgg(
            this="quantileExactInclusive", params=[node.this], expressions=[exp.Literal.number("0.5")]
        )
    if isinstance(node, exp.PercentileCont):
        return exp.ParameterizedAgg(this="quantileExactInclusive", params=[node.this], expressions=[node.expression])
    return node


def _in_duckdb(root: Path, source: Source) -> str:
    columns = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in source.columns)
    job = f"split_part(filename, '/', -{source.job_part}) AS job, " if source.job_part else ""
    none = f"SELECT {columns}, '' AS filename WHERE false"
    files = ", ".join(f"'{_escaped(str(path))}'" for path in _files(root, source))
    rows = (
        f"SELECT * FROM read_parquet([{files}], union_by_name = true, filename = true)"  # noqa: S608 - quoted
        if files
        else none
    )
    return f"SELECT {job}* EXCLUDE (filename) FROM ({none} UNION ALL BY NAME {rows})"  # noqa: S608 - quoted


def _files(root: Path, source: Source) -> Iterator[Path]:
    """Yield the files of a table; of segments not those that a merged one covers, as a running job has."""
    directory, _, pattern = source.pattern.rpartition("/")
    for each in sorted(root.glob(directory)):
        if source.job_part:
            yield from (segment.path for segment in segments.list_segments(each))
        else:
            yield from sorted(each.glob(pattern))


def _in_clickhouse(root: str, source: Source, files: str) -> str:
    structure = ", ".join(f"{name} Nullable({_KINDS[kind]})" for name, kind in source.columns)
    read = files.format(path=_escaped(f"{root.rstrip('/')}/{source.pattern}"), structure=structure)
    job = f"splitByChar('/', _path)[-{source.job_part}] AS job, " if source.job_part else ""
    return f"SELECT {job}* FROM {read}"  # noqa: S608 - quoted


def _escaped(text: str) -> str:
    return text.replace("'", "''")
