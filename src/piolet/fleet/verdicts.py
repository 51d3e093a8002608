"""Verdicts: what nodes can read of the fleet, one file of one line for each node that is not simply in.

    DIRECTORY/nodes/node7       suspect 1764075600 a fatal error of the GPU (xid:79)
    DIRECTORY/health_check.sh   for Slurm's HealthCheckProgram
    DIRECTORY/task_prolog.sh    for Slurm's TaskProlog

The number is when it expires, in seconds of Unix time: if nobody writes verdicts any more, they say nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

from piolet.core.errors import storage_errors
from piolet.core.files import write_text
from piolet.fleet.ledger import DRAINED
from piolet.fleet.planning import Seen
from piolet.fleet.state import Fleet, Node
from piolet.fleet.views import NOTABLE

HELPERS = ("health_check.sh", "task_prolog.sh")
"""What Slurm runs on nodes; each finds the verdicts beside itself."""

_LONGEST = 200


def of(fleet: Fleet, cluster: Iterable[Seen], expires_s: int) -> dict[str, str]:
    """Return the line of each node of `cluster` that is not simply in.

    Names that only a logbook knows are left out, and so is a drain that an administrator has undone.
    """
    judged = ((seen, fleet.nodes.get(seen.name)) for seen in cluster)
    return {seen.name: _line(node, expires_s) for seen, node in judged if node and _stands(node, seen)}


def _stands(node: Node, seen: Seen) -> bool:
    return node.state in NOTABLE and (node.state not in DRAINED or seen.ours)


def _line(node: Node, expires_s: int) -> str:
    printable = "".join(letter if letter.isprintable() else " " for letter in node.reason)
    return f"{node.state.value} {expires_s} {printable[:_LONGEST]}\n"


def write(directory: Path, lines: Mapping[str, str]) -> None:
    """Write each node's line and the helpers below `directory`, each file atomically; other verdicts are removed."""
    nodes = directory / "nodes"
    for name in HELPERS:
        write_text(directory / name, files("piolet.fleet").joinpath("slurm", name).read_text(), mode=0o755)
    for name, line in lines.items():
        write_text(nodes / name, line)
    with storage_errors(nodes, "remove old verdicts"):
        nodes.mkdir(exist_ok=True)
        for path in nodes.iterdir():
            if path.name not in lines and not path.name.startswith("."):  # those are being written
                path.unlink()
