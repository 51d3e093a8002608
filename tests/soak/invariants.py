"""What must hold, whatever happened. Each yields a line for each thing that broke it, and counts what it looked at."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from faults import Struck
from jobs import Asked
from world import World

from piolet.lab import processes
from piolet.logbook import keeping
from piolet.logbook.layout import Logbook

XID_SEEN_S = 1.0
"""A GPU that was lost for less before vetting began need not have been seen."""

EXPECTED = {
    "plain": {0},
    "failing": {7},
    "container": {0},
    "pulled": {0},
    "again": {0},
    "jumping": {0},
    "step": {0},
    "pull": {0},
}
BROKEN = {1, 2, 3, 128 + 9, 128 + 15, 255}
"""How a command may end when something broke: with an error of its own, as Slurm ended the program, or srun itself."""


def logbooks(world: World) -> list[Logbook]:
    """Return every logbook there is."""
    return [Logbook(path.parent) for root in world.roots for path in sorted(root.glob("*/*/job.json"))]


def every_command_ends_and_says_why(asked: list[Asked], late: list[Asked], counts: Counter[str]) -> Iterator[str]:
    """No command hangs, none shows a traceback, and one that fails says what to do."""
    for one in asked:
        counts["commands"] += 1
        status = one.process.returncode
        where = f"{one.output.name} ({status})"
        if one in late:
            yield f"{where} did not end: {' '.join(one.argv)}"
        elif one.abandoned:
            counts["lost logins"] += 1
        elif "Traceback (most recent call last)" in one.said:
            yield f"{where} shows a traceback"
        elif status in EXPECTED[one.kind]:
            counts["as asked"] += 1
        elif status not in BROKEN:
            yield f"{where} ended with a status of nobody's"
        elif not one.said.strip():
            yield f"{where} failed without a word"
        else:
            counts["failed, and said why"] += 1


def no_job_is_lost(world: World, counts: Counter[str]) -> Iterator[str]:
    """Each logbook says how its job ended, unless the disk was full or the whole job died with its first node."""
    for book in logbooks(world):
        counts["logbooks"] += 1
        if book.outcome.exists():
            continue
        state = world.slurm("sacct", "-X", "-n", "-P", "-j", book.path.name, "-o", "State", check=False).split("\n")[0]
        full = world.roots[1] in book.path.parents
        if state.split(" ")[0] in ("NODE_FAIL", "CANCELLED", "FAILED") or full:
            counts["logbooks whose job was killed before it could say so"] += 1
        else:
            yield f"{book.path.name} has no outcome, and Slurm says {state or 'nothing'}"
    left = world.slurm("squeue", "--noheader", "--format=%A %T").strip()
    if left:
        yield f"jobs that never ended: {left}"


def no_logbook_is_torn(world: World, counts: Counter[str]) -> Iterator[str]:
    """Everything that has its name can be read."""
    for book in logbooks(world):
        for damage in keeping.verify(book):
            if damage.path != book.outcome or book.outcome.exists():
                yield f"{damage.path}: {damage.what}"
        counts["segments"] += len(list(book.path.rglob("*.parquet")))


def no_bad_node_is_used(world: World, struck: list[Struck], counts: Counter[str]) -> Iterator[str]:
    """A node whose GPU was lost before vetting began and until it ended ran no program that was vetted."""
    xids = [each for each in struck if each.kind == "gpu_xid"]
    for book in logbooks(world):
        job = json.loads(book.job.read_text())
        if not job["request"]["protocol"] or not job["program_started_ns"]:
            continue
        counts["vetted programs"] += 1
        began_s, ran_s = job["started_ns"] / 1e9, job["program_started_ns"] / 1e9
        used = {held["node"] for held in job["allocation"] if held["used"]}
        for xid in xids:
            if xid.where in used and xid.from_s + XID_SEEN_S < began_s and ran_s < xid.to_s:
                yield f"{book.path.name} used {xid.where}, which had an Xid"


def nothing_is_left(world: World, counts: Counter[str]) -> Iterator[str]:
    """With no job there are only daemons: no program, no container, no half-written file."""
    time.sleep(3)
    daemons = {process.pid for process in processes.daemons(world.lab.directory).values()}
    family = [process for process in processes.members(world.lab.directory) if process.pid not in daemons]
    for process in family:
        if process.parent not in daemons and process.name not in ("mariadbd", "munged"):
            command = Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if re.search(r"slurmstepd|squashfuse|piolet|sleep", command):
                yield f"process {process.pid} is left: {command[:120]}"
    for place in (*world.roots, world.work / "store"):
        for path in place.rglob("*"):
            counts["files"] += 1
            if re.search(r"\.(partial|tmp|new)$", path.name):
                yield f"half-written: {path}"
