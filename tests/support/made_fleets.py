"""A fleet for tests: 40 nodes of two racks have reported; one of them is suspect, and its drain waits for approval."""

from __future__ import annotations

from pathlib import Path

from piolet.core.nouns import Status
from piolet.fleet import center, policy
from piolet.fleet.evidence import Evidence, Kind, Source, made_id

START_NS = 1_767_000_000_000_000_000
HOUR_NS = 3_600_000_000_000
NODES = 40

POLICY = '[racks]\nr1 = "node[01-20]"\nr2 = "node[21-40]"\n'


def suspect(directory: Path) -> tuple[Path, Path]:
    """Write a ledger and a policy with racks; return their paths."""
    site = directory / "policy.toml"
    site.write_text(policy.SHIPPED.read_text(encoding="utf-8") + POLICY, encoding="utf-8")
    path = directory / "fleet.db"
    falls = [_xid("node07", hours) for hours in (0, 30)]
    with center.opened(path, policy.load(site), lambda: START_NS + 40 * HOUR_NS) as opened:
        opened.gather(falls, NODES)
    return path, site


def _xid(node: str, hours: int) -> Evidence:
    time_ns = START_NS + hours * HOUR_NS
    return Evidence(
        made_id(node, hours),
        time_ns,
        Kind.XID,
        "79",
        node,
        gpu=f"GPU-{node}-0",
        status=Status.FAIL,
        job=str(hours + 1),
        message="GPU has fallen off the bus",
        source=Source.LOGBOOK,
    )


def ends(number: int, now_ns: int) -> list[Evidence]:
    """The end of a job of half a day on one of the nodes: node09 is lost in each of its own."""
    node, at_ns = f"node{number % 20 + 1:02d}", now_ns - (100 - number) * HOUR_NS
    lost = node == "node09"
    state, status = ("NODE_FAIL", Status.FAIL) if lost else ("COMPLETED", Status.PASS)
    job = {"job": f"j{number}", "source": Source.SLURM}
    ended = Evidence(made_id("end", number), at_ns, Kind.JOB, state, nodes=node, status=status, value=43200.0, **job)
    return [ended] + [Evidence(made_id("lost", number), at_ns, Kind.NODE, "NODE_FAIL", node, **job)] * lost
