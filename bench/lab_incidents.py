"""How well diagnosis names what happens to real recorded jobs: incidents on a lab, single and combined; healthy jobs.

    sudo .venv/bin/python bench/lab_incidents.py [--seed 3001] [--healthy 12] [--pairs 4] [--live 3]

Real are Slurm, `piolet run`, the recorder and its files, and the program that reports its steps; simulated are the
GPUs, whose faults the lab injects at a moment and a place that the seed draws. Every job has two nodes of four GPUs;
as many jobs as there are pairs of nodes run at once. With --live, the page of a job that runs is followed as a browser
does it, and the time is taken from the injection of a slow GPU at minute 2 to the page that names node and GPU.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import duckdb
import httpx2
from common import measured, report
from lab_faults import BENIGN, GPUS, INCIDENTS, LONG_S, TRAINING, Run, dip, slow

from piolet.lab import Lab, Spec, down, up
from piolet.lab.gpu_faults import Fault
from piolet.lab.gpus import arm_script, clear, inject
from piolet.logbook.layout import Logbook
from piolet.logbook.records import Diagnosis
from piolet.watch import archive
from piolet.watch.diagnosis.diagnose import diagnose

PROGRAM = Path(__file__).with_name("lab_program.py")
PIOLET = Path(sys.executable).with_name("piolet")


@dataclass(frozen=True, slots=True)
class Judged:
    """A job: the rank at which each true cause was named (None: not), the false ones, the hours that it took."""

    ranks: dict[str, int | None]
    false: tuple[str, ...]
    hours: float


class Bench:
    """A lab, its pairs of nodes, and a root of logbooks."""

    def __init__(self, lab: Lab, root: Path) -> None:
        self.lab = lab
        self.root = root
        self.nodes = [f"node{number}" for number in range(1, lab.spec.nodes + 1)]
        self.free: Queue[tuple[str, str]] = Queue()
        for pair in zip(self.nodes[::2], self.nodes[1::2], strict=True):
            self.free.put(pair)

    def judged(self, apply: Callable[[Run], None], seed: str) -> Judged:
        """Run a job and diagnose it."""
        pair = self.free.get()
        try:
            run = drawn(pair, apply, seed)
            logbook = self.start(run)
            time.sleep(run.begin_s)
            self.strike(run, brief=apply is dip)
            self.wait(run, logbook)
            with archive.open_logbook(logbook) as book:
                found = diagnose(book).findings
                seconds = book.interval.duration_s if book.interval else 0.0
        finally:
            self.free.put(pair)
        ranks = {name: rank_of(name, run, found) for name in run.expected}
        true = {rank for rank in ranks.values() if rank}
        false = tuple(each.rule for rank, each in enumerate(found, 1) if rank not in true)
        print(f"  {seed:12} {ranks or 'healthy'}{f' false: {false}' if false else ''}", flush=True)
        return Judged(ranks, false, seconds / 3600)

    def start(self, run: Run) -> Logbook:
        """Start the job, and return its logbook once the program has begun."""
        for node, gpu in run.every_gpu:
            clear(self.gpu(node), gpu)
            arm_script(self.gpu(node), gpu, run.scripts.get((node, gpu), TRAINING))
        told = subprocess.run(
            self.argv(run), cwd="/", env=self.environment(), capture_output=True, text=True, check=True
        )
        output, path = re.findall(r"(?:its output is|its logbook) ([^\s,]+)", told.stdout + told.stderr)
        while "begins" not in (Path(output).read_text() if Path(output).exists() else ""):
            time.sleep(0.2)
        return Logbook(Path(path))

    def strike(self, run: Run, *, brief: bool = False) -> None:
        """Do to the GPUs what the run has in store for them; if `brief`, undo it after some seconds."""
        for node, gpu, kind, argument in run.later:
            inject(self.gpu(node), gpu, Fault(kind, argument))
        if brief:
            time.sleep(8)
            clear(self.gpu(run.node), run.gpu)

    def wait(self, run: Run, logbook: Logbook) -> None:
        """Wait until the job has its outcome, and undo the faults."""
        until = time.monotonic() + run.seconds + 120
        while not logbook.outcome.exists():
            if time.monotonic() > until:
                raise SystemExit(f"job {logbook.path} does not end")
            time.sleep(0.5)
        for node, gpu in run.every_gpu:
            clear(self.gpu(node), gpu)

    def argv(self, run: Run) -> list[str]:
        """Return the command of the job: on its pair of nodes, which no other job has."""
        others = ",".join(node for node in self.nodes if node not in run.nodes)
        program = ["python3", str(PROGRAM), str(run.seconds), *run.program]
        return [
            str(PIOLET),
            "run",
            "-N",
            "2",
            *(["-x", others] if others else []),
            "--detach",
            "--record",
            "--",
            *program,
        ]

    def environment(self) -> dict[str, str]:
        """Return the environment of a user of the lab."""
        return dict(os.environ) | self.lab.environment() | {"PIOLET_ROOT": str(self.root)}

    def gpu(self, node: str) -> Path:
        """Return the directory of a node's simulated GPUs."""
        return self.lab.node_directory(node) / "gpu"


def drawn(pair: tuple[str, str], apply: Callable[[Run], None], seed: str) -> Run:
    """Return a run with its place, moment and strength drawn from the seed."""
    chance = random.Random(seed)  # noqa: S311 - reproducible, not secret
    run = Run(pair, chance.choice(pair), chance.randrange(GPUS), chance.uniform(35, 60), chance.random())
    apply(run)
    return run


def rank_of(name: str, run: Run, found: Sequence[Diagnosis]) -> int | None:
    """Return at which rank the true cause stands: the rule, and the node and GPU unless it is about the whole job."""
    for rank, each in enumerate(found, start=1):
        there = run.node in each.nodes and each.gpu == run.gpu
        if each.rule == name and (name in run.job_wide or there):
            return rank
    return None


def live(bench: Bench, seed: str) -> float:
    """Return the seconds from the moment at which a GPU of a running job slows down to the page that names it."""
    pair = bench.free.get()
    try:
        run = drawn(pair, slow, seed)
        run.seconds = LONG_S
        logbook = bench.start(run)
        path = f"/jobs/{logbook.path.parent.name}/{logbook.path.name}"
        with serving(bench.root) as client:
            time.sleep(120)
            bench.strike(run)
            began = time.monotonic()
            seconds = next(
                (time.monotonic() - began for page in followed(client, path) if f"{run.node}:{run.gpu}</h3>" in page),
                float("inf"),
            )
        bench.wait(run, logbook)
    finally:
        bench.free.put(pair)
    print(f"  {seed:12} {run.node}:{run.gpu} named after {seconds:.0f} s", flush=True)
    return seconds


def followed(client: httpx2.Client, path: str) -> Iterator[str]:
    """Yield the page of a running job whenever the server says that there is something new, as a browser does."""
    with client.stream("GET", f"{path}/live") as events:
        for line in events.iter_lines():
            if line == "event: changed":
                yield client.get(path, headers={"X-Fragment": "1"}).raise_for_status().text


@contextmanager
def serving(root: Path) -> Iterator[httpx2.Client]:
    """Serve the logbooks with the real command; yield a client that is logged in."""
    said = root / f"{secrets.token_hex(4)}.web"
    with said.open("w") as file:
        server = subprocess.Popen(
            [str(PIOLET), "web", "--port", "0"], env=os.environ | {"PIOLET_ROOT": str(root)}, stderr=file
        )
    while not (link := re.search(r"http\S+token=\S+", said.read_text())):
        if server.poll() is not None:
            raise SystemExit(f"the server did not start: {said.read_text()}")
        time.sleep(0.1)
    try:
        with httpx2.Client(base_url=link[0].split("/login")[0], follow_redirects=True, timeout=60) as client:
            client.get(link[0]).raise_for_status()
            yield client
    except httpx2.HTTPError as error:
        raise SystemExit(f"{error}\n{said.read_text()}") from error
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seed", type=int, default=3001)
    parser.add_argument("--healthy", type=int, default=12, help="healthy jobs")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of nodes: jobs at once")
    parser.add_argument("--live", type=int, default=3, help="jobs whose page is followed")
    parser.add_argument("--only", default="", help="only incidents of this kind: thermal, power, slow, xid ...")
    given = parser.parse_args()
    sick = [each for each in INCIDENTS if each.__name__.startswith(given.only)]
    wanted = [*sick, *(BENIGN[number % len(BENIGN)] for number in range(given.healthy))]
    random.Random(given.seed).shuffle(wanted)  # noqa: S311 - an order
    lab = up(Spec(name=f"incidents-{secrets.token_hex(3)}", nodes=2 * given.pairs, gpus=GPUS))
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        try:
            bench = Bench(lab, Path(scratch))
            with ThreadPoolExecutor(given.pairs) as pool:
                following = [pool.submit(live, bench, f"{given.seed}-live-{number}") for number in range(given.live)]
                running = [
                    pool.submit(bench.judged, each, f"{given.seed}-{number}") for number, each in enumerate(wanted)
                ]
                named, judged = [each.result() for each in following], [each.result() for each in running]
        finally:
            down(lab.spec.name)
    show(judged, named)


def show(judged: Sequence[Judged], named: Sequence[float]) -> None:
    """Print the table of the rules, and report."""
    hits: dict[str, list[int | None]] = defaultdict(list)
    wrong = Counter(name for each in judged for name in each.false)
    for each in judged:
        for name, rank in each.ranks.items():
            hits[name].append(rank)
    print(f"{'rule':20} {'n':>3} {'recall':>7} {'precision':>9} {'mean rank':>9}")
    for name in sorted({*hits, *wrong}):
        found = [rank for rank in hits[name] if rank]
        recall = f"{len(found) / len(hits[name]):.2f}" if hits[name] else "-"
        precision = f"{len(found) / (len(found) + wrong[name]):.2f}" if found or wrong[name] else "-"
        rank = f"{statistics.fmean(found):.1f}" if found else "-"
        print(f"{name:20} {len(hits[name]):3} {recall:>7} {precision:>9} {rank:>9}")
    sick, well = [each for each in judged if each.ranks], [each for each in judged if not each.ranks]
    total = sum(len(each.ranks) for each in sick)
    right = sum(rank is not None for each in sick for rank in each.ranks.values())
    first = sum(1 in each.ranks.values() for each in sick)
    alarms, hours = sum(len(each.false) for each in well), sum(each.hours for each in well)
    results = [
        measured(f"{total} incidents in {len(sick)} recorded jobs: named", "", [right]),
        measured("a true cause first", f"of {len(sick)}", [first]),
        measured(f"false alarms of {len(well)} healthy jobs, {hours:.2f} hours", "", [alarms], aim="ours <= 0"),
    ]
    if named:
        results.append(measured("a GPU that slows down is named on the live page", "s after", named, aim="ours <= 60"))
    report(__file__, results, duckdb=f"DuckDB {duckdb.__version__}")


if __name__ == "__main__":
    main()
