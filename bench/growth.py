"""How the time of an answer grows with nodes, samples, jobs, files and evidence, and where the growth bends.

    python bench/growth.py [CURVE ...] [--most 1e9] [--disk-gb 8]

Each size is made afresh in /var/tmp; the time is the median of three, of one where it is over ten seconds. The exponent
is the slope of log(time) over log(size). A curve ends early, and says so, where making its input would need more memory
or disk than there is. Writes build/bench/curves.json and docs/images/growth.svg beside its figures.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import data_check
import fleet_ledger
import report_time
from chart import drawn
from common import CHECKOUT, RESULTS, Result, measured, number, report, seconds, timed, version
from fleet_lemons import End
from fleet_service import phantom_cluster
from vet_scale import made_answer

from piolet.core.nodeset import NodeSet
from piolet.core.run import SystemRunner
from piolet.core.settings import Settings
from piolet.fleet import blame, center, policy
from piolet.logbook import layout
from piolet.logbook.records import JobRecord, Outcome, write_job, write_outcome
from piolet.tools.slurm import scontrol, sinfo
from piolet.vet import judge_answers, load_protocol
from piolet.watch import access
from piolet.watch.archive import Archive

PIOLET = [sys.executable, "-m", "piolet"]
LONG_S = 10.0
BEND = 0.25
SAMPLES_A_ROW = len(report_time.GPU)
NODES, GPUS = 16, 4
BYTES_A_SAMPLE = 4
"""On disk, at the most, as bench/bytes_per_sample.py measures: what decides whether a size fits."""

Action = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Curve:
    """What is timed over what; `ready(size, directory)` makes the input and yields the action that is timed."""

    what: str
    over: str
    sizes: Sequence[int]
    ready: Callable[[int, Path], Iterator[Action]]


def nodes_listed(size: int, _: Path) -> Iterator[Action]:
    """Ask a real slurmctld with so many nodes, of which 8 are alive."""
    with phantom_cluster(size - 8) as lab:
        runner = SystemRunner(lab.environment())

        def asked() -> None:
            scontrol.node_records(runner, NodeSet(",".join(node.name for node in sinfo.nodes(runner))))

        yield lambda: timed(asked)


def nodes_judged(size: int, _: Path) -> Iterator[Action]:
    """Judge the answers of so many nodes."""
    protocol, names = load_protocol("ml-training", Settings()), NodeSet(f"node[1-{size}]")
    answers = [made_answer(node, protocol) for node in names]
    yield lambda: timed(lambda: judge_answers(names, answers, protocol))


def nodes_scored(size: int, directory: Path) -> Iterator[Action]:
    """Score ten minutes of so many nodes."""
    yield from scored(report_time.Size(size, GPUS, 600), directory)


def samples_scored(size: int, directory: Path) -> Iterator[Action]:
    """Score so many numbers of GPUs, of 16 nodes."""
    yield from scored(report_time.Size(NODES, GPUS, max(1, size // (NODES * GPUS * SAMPLES_A_ROW))), directory)


def scored(size: report_time.Size, directory: Path) -> Iterator[Action]:
    """Score a job of a size."""
    logbook = report_time.make(directory, "1", size).path
    yield lambda: seconds([*PIOLET, "score", str(logbook), "--brief", "--html", str(logbook / "report.html")])


def jobs_listed(size: int, directory: Path) -> Iterator[Action]:
    """List so many jobs for a page."""
    make_jobs(directory, size)
    yield lambda: timed(lambda: Archive(directory).seen_by(access.this_process()).find())


def jobs_listed_by_command(size: int, directory: Path) -> Iterator[Action]:
    """List so many logbooks on the command line."""
    make_jobs(directory, size)
    environment = os.environ | {"PIOLET_ROOT": str(directory)}
    yield lambda: seconds([*PIOLET, "logbook", "ls"], env=environment)


def make_jobs(directory: Path, count: int) -> None:
    """Write the records of jobs without samples, as most of a list are: one as a job does, the others after it."""
    first = layout.create(directory, "bench", "1")
    write_job(first.job, JobRecord("1", "bench", "root", ("python", "train.py"), started_ns=1))
    write_outcome(first.outcome, Outcome("COMPLETED", 0, ended_ns=2))
    job, outcome = first.job.read_text(), first.outcome.read_text()
    for number_ in range(2, count + 1):
        there = first.path.with_name(str(number_))
        there.mkdir()
        (there / first.job.name).write_text(job.replace('"job_id": "1"', f'"job_id": "{number_}"'))
        (there / first.outcome.name).write_text(outcome)


def files_walked(size: int, directory: Path) -> Iterator[Action]:
    """Walk so many files."""
    data_check.make(directory, size)
    yield lambda: seconds([*PIOLET, "data", "check", str(directory), "--format", "json"], ok=(0, 1))


def files_packed(size: int, directory: Path) -> Iterator[Action]:
    """Pack so many files of a kilobyte into an image."""
    tree, image = directory / "tree", directory / "image.sqsh"
    data_check.make(tree, size)
    noise = random.Random(1).randbytes(1000)  # noqa: S311 - a benchmark
    for path in tree.rglob("*.jpg"):
        path.write_bytes(noise)

    def packed() -> float:
        image.unlink(missing_ok=True)
        return seconds([*PIOLET, "data", "pack", str(tree), str(image)])

    yield packed


def evidence_learned(size: int, directory: Path) -> Iterator[Action]:
    """Take in so many results of checks."""
    evidence, rules = fleet_ledger.made(size, 2700), policy.load()

    def learned() -> None:
        path = Path(tempfile.mkdtemp(dir=directory)) / "fleet.db"
        with center.opened(path, rules) as opened:
            for start in range(0, len(evidence), fleet_ledger.BATCH):
                opened.gather(evidence[start : start + fleet_ledger.BATCH], 2700)

    yield lambda: timed(learned)


def evidence_folded(size: int, directory: Path) -> Iterator[Action]:
    """Come back from a ledger of so many entries."""
    path = directory / "fleet.db"
    evidence = fleet_ledger.made(size, 2700)
    with center.opened(path, policy.load()) as opened:
        for start in range(0, len(evidence), 10 * fleet_ledger.BATCH):
            opened.gather(evidence[start : start + 10 * fleet_ledger.BATCH], 2700)
    yield lambda: timed(lambda: center.look(path))


def evidence_ranked(size: int, _: Path) -> Iterator[Action]:
    """Rank 2 700 nodes by the ends of so many jobs of one to 64 nodes, of which one in twenty failed."""
    chance = random.Random(1)  # noqa: S311 - a benchmark
    evidence = []
    for job in range(size):
        first, many = chance.randrange(2636), 2 ** chance.randrange(7)
        end = End(str(job), [f"n{number_:04d}" for number_ in range(first, first + many)], 2e6 * job / size, 3600.0)
        failed = chance.random() < 0.05  # noqa: PLR2004 - one in twenty
        evidence.append(end.told("FAILED", culprit=chance.choice(end.nodes)) if failed else end.told("COMPLETED"))
    yield lambda: timed(lambda: blame.ranking(evidence, evidence[-1].time_ns))


def powers(least: int, most: int) -> list[int]:
    """Return powers of ten."""
    return [10**power for power in range(least, most + 1)]


CURVES = {
    "nodes-listed": Curve("nodes read from slurmctld", "nodes", (16, 64, 500, 2700), nodes_listed),
    "nodes-judged": Curve("vetting: answers judged", "nodes", (4, 64, 500, 2700), nodes_judged),
    "nodes-scored": Curve("report of 10 min x 4 GPUs", "nodes", (4, 64, 500), nodes_scored),
    "samples": Curve("report of 16 nodes x 4 GPUs", "samples", powers(6, 9), samples_scored),
    "jobs-page": Curve("list of jobs, first time", "jobs", powers(0, 4), jobs_listed),
    "jobs-ls": Curve("piolet logbook ls", "jobs", powers(0, 4), jobs_listed_by_command),
    "files-check": Curve("piolet data check", "files", powers(3, 6), files_walked),
    "files-pack": Curve("piolet data pack, 1 kB each", "files", powers(3, 5), files_packed),
    "evidence-learn": Curve("fleet: learn", "evidence", powers(3, 6), evidence_learned),
    "evidence-fold": Curve("fleet: come back", "evidence", powers(3, 6), evidence_folded),
    "evidence-rank": Curve("fleet: rank, ends of jobs", "evidence", powers(3, 6), evidence_ranked),
}


def main() -> None:
    """Measure the curves that were asked for, and draw all that there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", nargs="*", default=list(CURVES), metavar="CURVE", help=", ".join(CURVES))
    parser.add_argument("--most", type=float, default=1e9, help="the largest size")
    parser.add_argument("--disk-gb", type=float, default=8, help="what the input of one size may take")
    asked = parser.parse_args()
    kept = RESULTS / "curves.json"
    found = {each["name"]: each for each in json.loads(kept.read_text())} if kept.exists() else {}
    for name in asked.curves:
        found[name] = told(name, CURVES[name], list(measure(CURVES[name], asked.most, asked.disk_gb)))
        print(name, found[name], flush=True)
    curves = [found[name] for name in CURVES if name in found]
    report(__file__, map(result, curves), slurm=version("slurmctld", "-V"))
    kept.write_text(json.dumps(curves, indent=1))
    (CHECKOUT / "docs/images/growth.svg").write_text(drawn(curves), encoding="utf-8")


def measure(curve: Curve, most: float, disk_gb: float) -> Iterator[tuple[int, float]]:
    """Yield each size and the seconds that it takes."""
    for size in curve.sizes:
        if size > most or (curve.over == "samples" and size * BYTES_A_SAMPLE > disk_gb * 1e9):
            return
        with tempfile.TemporaryDirectory(prefix="piolet-growth-", dir="/var/tmp") as name:
            with contextmanager(curve.ready)(size, Path(name)) as action:
                taken = [action()]
                while len(taken) < (1 if taken[0] > LONG_S else 3):
                    taken.append(action())
            shutil.rmtree(name)
            Path(name).mkdir()
        yield size, statistics.median(taken)


def slope(points: Sequence[tuple[int, float]]) -> float:
    """Return the slope of the line through points on logarithmic axes."""
    return statistics.linear_regression(*zip(*[(math.log(x), math.log(y)) for x, y in points], strict=True)).slope


def result(curve: dict[str, Any]) -> Result:
    """Return the exponents between each two sizes as one figure."""
    steps = [slope(pair) for pair in pairwise(curve["values"])]
    return measured(f"exponent of {curve['what']} over {curve['over']}, between sizes", "", steps)


def told(name: str, curve: Curve, points: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """Return what the page and the chart say of a curve."""
    steps = [slope(pair) for pair in pairwise(points)]
    bends = [
        f"at {points[place + 1][0]:,}: {steps[place]:.2f} to {steps[place + 1]:.2f}"
        for place in range(len(steps) - 1)
        if abs(steps[place + 1] - steps[place]) > BEND
    ]
    ended = "" if points[-1][0] == curve.sizes[-1] else f"; not measured above {points[-1][0]:,}"
    return {
        "name": name,
        "what": curve.what,
        "over": curve.over,
        "values": points,
        "points": [(f"{size:,}".replace(",", " "), number(taken)) for size, taken in points],
        "exponent": f"{slope(points):.2f}",
        "last": f"{steps[-1]:.2f}",
        "bends": ("; ".join(bends) or "nowhere") + ended,
    }


if __name__ == "__main__":
    main()
