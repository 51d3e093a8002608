"""How fast the fleet learns and comes back: evidence a second, and the time to fold and to verify a ledger.

    python bench/fleet_ledger.py [--items 50000] [--runs 15] [--nodes 2700]

Results of checks, 0.2 % of them failures, in batches of 500, each batch one synchronised transaction in a
temporary directory. The peer is the same evidence inserted into SQLite as it is, with the same settings: no chain, no
rules, no state.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import tempfile
import time
from pathlib import Path

from common import measured, report

from piolet.core.nouns import Status
from piolet.fleet import center, policy
from piolet.fleet.evidence import Evidence, Kind, made_id, to_json

BATCH = 500
FAILING = 0.002
SEED = 1


def main() -> None:
    """Measure and print."""
    arguments = _arguments()
    evidence = made(arguments.items, arguments.nodes)
    turns = [turn(evidence, arguments.nodes) for _ in range(arguments.runs)]
    learn, plain, fold, verify = zip(*turns, strict=True)
    results = [
        measured("learn evidence", "items/s", learn, plain, peer="rows into SQLite as they are"),
        measured("fold the ledger", "entries/s", fold),
        measured("verify the ledger", "entries/s", verify),
    ]
    report(__file__, results, sqlite=sqlite3.sqlite_version)


def made(items: int, nodes: int) -> list[Evidence]:
    """Return `items` results of checks on `nodes` nodes, one a second."""
    chance = random.Random(SEED)  # noqa: S311 - a benchmark
    return [
        Evidence(
            made_id(number),
            10**18 + number * 10**9,
            Kind.CHECK,
            chance.choice(["gpu_ecc", "mounts", "clock"]),
            f"node{chance.randrange(nodes)}",
            status=Status.FAIL if chance.random() < FAILING else Status.PASS,
            job=str(number // 8),
            message="as long as the reasons of checks are, which is some sixty characters",
        )
        for number in range(items)
    ]


def turn(evidence: list[Evidence], nodes: int) -> tuple[float, float, float, float]:
    """Return items/s learned, items/s inserted plainly, entries/s folded, entries/s verified."""
    rules = policy.load()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "fleet.db"
        with center.opened(path, rules) as opened:
            began = time.perf_counter()
            for start in range(0, len(evidence), BATCH):
                opened.gather(evidence[start : start + BATCH], nodes)
            learned = time.perf_counter()
        plain = plain_inserts(Path(directory) / "plain.db", evidence)
        folding = time.perf_counter()
        center.look(path)
        folded = time.perf_counter()
        count, _ = center.verify_ledger(path)
        verified = time.perf_counter()
    return len(evidence) / (learned - began), plain, count / (folded - folding), count / (verified - folded)


def plain_inserts(path: Path, evidence: list[Evidence]) -> float:
    """Return how many items/s SQLite takes as they are."""
    database = sqlite3.connect(path)
    for setting in ("journal_mode=WAL", "synchronous=FULL"):
        database.execute(f"PRAGMA {setting}")
    database.execute("CREATE TABLE evidence (id TEXT PRIMARY KEY, text TEXT)")
    began = time.perf_counter()
    for start in range(0, len(evidence), BATCH):
        rows = [(one.id, json.dumps(to_json(one))) for one in evidence[start : start + BATCH]]
        with database:
            database.executemany("INSERT OR IGNORE INTO evidence VALUES (?, ?)", rows)
    took_s = time.perf_counter() - began
    database.close()
    return len(evidence) / took_s


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--nodes", type=int, default=2700)
    return parser.parse_args()


if __name__ == "__main__":
    main()
