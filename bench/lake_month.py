"""How long questions about a month of a large machine take: hourly roll-ups of 2 700 nodes x 4 GPUs, 7.8 million rows.

    .venv/bin/python bench/lake_month.py [--nodes 2700] [--days 30] [--runs 15]

The roll-ups are generated, a file a day as `piolet watch rollup` writes them. The same questions run on DuckDB and, as
sqlglot says them, on chDB (ClickHouse in this process), over the same files.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import chdb
import duckdb
from common import in_turns, measured, report, timed

from piolet.watch import lake
from piolet.watch.rollups import COLUMNS

START_NS = 1_767_225_600_000_000_000
QUESTIONS = ("busy-hours", "accounts", "idle-gpus", "slow-nodes", "throttled")


def write(root: Path, nodes: int, days: int) -> int:
    """Write the roll-ups and return how many bytes they take."""
    directory = root / "bench" / "rollup" / "gpu_1h"
    directory.mkdir(parents=True)
    values = ", ".join(
        f"round({scale} * (0.7 + 0.3 * random()), 3)::DOUBLE AS {name}, 0.0::DOUBLE AS {name}_low, "
        f"{scale}::DOUBLE AS {name}_high"
        for name, scale in (
            (name, 1 if name.endswith("ratio") else 2e9 if name.endswith("hz") else 600) for name in COLUMNS["gpu"]
        )
    )
    with duckdb.connect() as database:
        database.execute("SELECT setseed(0.4711)")
        for day in range(days):
            database.execute(
                f"""
                COPY (
                    SELECT ({day} * 1000 + n // 16)::VARCHAR AS job, 'u' || n % 97 AS user_name,
                        'a' || n % 23 AS account,
                        {START_NS} + ({day} * 24 + h) * 3600000000000 AS time_ns, format('n{{:04d}}', n) AS node,
                        g::INTEGER AS gpu, 3600::BIGINT AS samples, {values},
                        CASE WHEN hash(n, g) % 500 = 0 THEN 0.2 ELSE 0.0 END::DOUBLE AS throttled_ratio
                    FROM range({nodes}) a(n), range(4) b(g), range(24) c(h) ORDER BY node, time_ns
                ) TO '{directory}/day-{day:03d}.parquet' (FORMAT parquet, COMPRESSION zstd)
                """  # noqa: S608 - numbers
            )
    return sum(path.stat().st_size for path in directory.iterdir())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nodes", type=int, default=2700)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--runs", type=int, default=15)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        size = write(root, given.nodes, given.days)
        rows, results = given.nodes * 4 * 24 * given.days, []
        for name in QUESTIONS:
            query = lake.query_of(name)
            other = lake.clickhouse(scratch, "bench", query)
            ways = {
                "DuckDB": lambda query=query: timed(lambda: lake.ask(root, "bench", query)),
                "ClickHouse": lambda other=other: timed(lambda: chdb.query(other, "JSONCompact")),
            }
            taken = in_turns(given.runs, ways)
            what = f"{name}, of {rows:,} rows, {size / 1e6:.0f} MB"
            results.append(measured(what, "s", taken["DuckDB"], taken["ClickHouse"], peer="ClickHouse"))
        report(__file__, results, duckdb=f"DuckDB {duckdb.__version__}", chdb=f"chDB {chdb.__version__}")


if __name__ == "__main__":
    main()
