"""How fast the web application answers for a job of 64 nodes x 4 GPUs x 1 h at 1 Hz: time and size of each page.

    .venv/bin/python bench/web_pages.py [--nodes 64] [--seconds 3600] [--runs 15] [--jobs 1000] [--watchers 100]

The logbook is generated with DuckDB, beside a thousand jobs without samples. `first` is a page that the server has not
seen yet (a new server each time), `again` one that it has. A page that is not ready within a second is sent without
what is missing; `job, whole` is what its script asks for then, timed from the first request on. `load` are requests of
the same page by 16 clients at once. `followed` is a job that 100 browsers follow while it grows: memory, and how long
the page takes meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import duckdb
import httpx2
from common import Result, measured, report

from piolet.core.nouns import Gpu
from piolet.logbook import layout
from piolet.logbook.records import JobRecord, NodeAllocation, Outcome, Request, write_job, write_outcome
from piolet.logbook.writer import SegmentWriter
from piolet.web.glance import MOST_ROWS

START_NS = 1_767_000_000_000_000_000
GPUS = 4
CLIENTS, REQUESTS = 16, 400
FOLLOWED_S = 20
WHOLE = "job, whole"
PAGES = {
    "list": "/",
    "job": "/jobs/bench/1",
    WHOLE: "/jobs/bench/1",
    "node": "/jobs/bench/1/nodes/n001",
    "plot of the job": "/jobs/bench/1/series?metric=gpu.power_w",
    "plot of a node": "/jobs/bench/1/series?metric=gpu.power_w&split=device&node=n001",
}
GROUPS = {
    "group of nodes": "/jobs/bench/1/nodes?group=n001",
    "plot of a group, a line a node": "/jobs/bench/1/series?metric=gpu.power_w&split=node&group=n001",
    "plot of a range": "/jobs/bench/1/series?metric=gpu.power_w&from=100&to=140",
}
"""Pages of a job that is shown by groups."""


def made_logbook(root: Path, nodes: int, seconds: int) -> None:
    """Write the logbook of a job that computed with noise and checkpointed every ten minutes."""
    logbook = layout.create(root, "bench", "1")
    names = [f"n{number:03d}" for number in range(1, nodes + 1)]
    held = [
        NodeAllocation(
            name, tuple(Gpu(index, f"GPU-{name}-{index}", "NVIDIA H100 80GB HBM3", 80 << 30) for index in range(GPUS))
        )
        for name in names
    ]
    end_ns = START_NS + seconds * 10**9
    write_job(
        logbook.job,
        JobRecord(
            "1", "bench", os.environ.get("USER", "root"), ("python", "train.py"), Request(nodes=nodes, record=True),
            name="bench", allocation=tuple(held), started_ns=START_NS, program_started_ns=START_NS,
            program_ended_ns=end_ns, sample_interval_s=1.0,
        ),
    )  # fmt: skip
    write_outcome(logbook.outcome, Outcome("COMPLETED", 0, ended_ns=end_ns))
    directory = logbook.family("gpu")
    directory.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as database:
        database.execute("SELECT setseed(0.4711)")
        for name in names:
            database.execute(
                f"""
                COPY (
                    SELECT {START_NS} + t * 1000000000 AS time_ns, '{name}' AS node, g::INTEGER AS gpu,
                        'GPU-{name}-' || g AS uuid, level AS gr_engine_active_ratio,
                        (0.85 * level)::FLOAT AS sm_active_ratio, (0.5 * level)::FLOAT AS tensor_active_ratio,
                        (0.4 * level)::FLOAT AS dram_active_ratio, (90 + 560 * level)::FLOAT AS power_w,
                        (40 + 20 * level)::FLOAT AS temperature_c, 1980000000::BIGINT AS sm_clock_hz,
                        1980000000::BIGINT AS sm_clock_max_hz
                    FROM (
                        SELECT t, g, round(CASE WHEN t % 600 < 20 THEN 0.05 ELSE 0.9 + 0.1 * random() END, 3) AS level
                        FROM range({seconds}) a(t), range({GPUS}) b(g)
                    )
                ) TO '{directory}/{name}-000001.parquet' (FORMAT parquet, COMPRESSION zstd)
                """  # noqa: S608 - our own names and numbers
            )


def other_jobs(root: Path, count: int) -> None:
    """Write the records of jobs that were not recorded, as most of a list are."""
    for number in range(2, count + 2):
        logbook = layout.create(root, "bench", str(number))
        started_ns = START_NS - number * 10**12
        write_job(logbook.job, JobRecord(str(number), "bench", "ada", ("python", "train.py"), started_ns=started_ns))
        write_outcome(logbook.outcome, Outcome("COMPLETED", 0, ended_ns=started_ns + 10**12))


def grow(root: Path, stop: threading.Event) -> None:
    """Let a job of 4 nodes run: each writes a segment every other second."""
    logbook = layout.create(root, "bench", "running")
    names = [f"n{number}" for number in range(4)]
    held = tuple(NodeAllocation(name, tuple(Gpu(index, f"GPU-{name}-{index}") for index in range(4))) for name in names)
    write_job(
        logbook.job,
        JobRecord(
            "running", "bench", "ada", ("python", "train.py"), allocation=held, started_ns=time.time_ns(),
            program_started_ns=time.time_ns(), sample_interval_s=1.0,
        ),
    )  # fmt: skip
    writers = {name: SegmentWriter(logbook, name) for name in names}
    while not stop.wait(2):
        for name, index in itertools.product(names, range(4)):
            row = {"gpu": index, "sm_active_ratio": 0.8, "gr_engine_active_ratio": 0.9, "power_w": 500}
            writers[name].append("gpu", row | {"time_ns": time.time_ns(), "node": name})
        for writer in writers.values():
            writer.flush()


class Server:
    """A server of its own on a free port, and a client that is logged in."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "piolet", "web", "--port", "0"],
            env=os.environ | {"PIOLET_ROOT": str(root), "PIOLET_WEB_REQUESTS_PER_MINUTE": "1000000"},
            stderr=subprocess.PIPE,
            text=True,
        )
        link = re.search(r"http\S+", self.process.stderr.readline() if self.process.stderr else "")
        if not link:
            raise SystemExit("the server did not start")
        self.client = httpx2.Client(base_url=link[0].split("/login")[0], follow_redirects=True, timeout=60)
        self.client.get(link[0]).raise_for_status()

    def timed(self, path: str, *, whole: bool = False) -> tuple[float, int]:
        """Return seconds and bytes of one answer."""
        began, headers = time.perf_counter(), {"X-Fragment": "1"} if whole else {}
        answer = self.client.get(path, headers=headers).raise_for_status()
        while whole and "data-missing" in answer.text:
            answer = self.client.get(path, headers=headers).raise_for_status()
        return time.perf_counter() - began, len(answer.content)

    def rate(self, path: str) -> float:
        """Return answers a second to CLIENTS clients."""
        began = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda _: self.client.get(path).raise_for_status(), range(REQUESTS)))
        return REQUESTS / (time.perf_counter() - began)

    def followed(self, path: str, watchers: int) -> tuple[int, list[float]]:
        """Follow a job as many browsers do for a while; return how many changes they saw, and times of the page."""
        seen: list[int] = []
        with ThreadPoolExecutor(watchers) as pool:
            following = [pool.submit(self._follow, path) for _ in range(watchers)]
            times = []
            while not all(each.done() for each in following):
                times.append(self.timed(path)[0])
                time.sleep(0.5)
            seen = [each.result() for each in following]
        return sum(seen), times

    def _follow(self, path: str) -> int:
        until, changes = time.monotonic() + FOLLOWED_S, 0
        with (
            httpx2.Client(base_url=self.client.base_url, cookies=self.client.cookies, timeout=60) as client,
            client.stream("GET", f"{path}/live") as stream,
        ):
            for line in stream.iter_lines():
                if line == "event: changed":
                    changes += 1
                    client.get(path, headers={"X-Fragment": "1"}).raise_for_status()
                if time.monotonic() > until:
                    break
        return changes

    def memory_mb(self) -> float:
        """Return the highest resident memory of the server so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmHWM:\s+(\d+)", status)
        return int(found[1]) / 1024 if found else 0.0

    def close(self) -> None:
        """End the server."""
        self.client.close()
        self.process.terminate()
        self.process.wait()


@dataclass(slots=True)
class Measured:
    """Seconds of each page, first and again; its bytes; pages a second under load; the server's memory."""

    first_s: dict[str, list[float]]
    again_s: dict[str, list[float]]
    sizes: dict[str, int]
    rates: dict[str, float]
    memory_mb: float = 0.0


def asked(root: Path, runs: int) -> Measured:
    """Ask a new server for each page, again, and under load, `runs` times."""
    found = Measured({name: [] for name in PAGES}, {name: [] for name in PAGES}, {}, {})
    for _ in range(runs):
        with closing(Server(root)) as server:
            for name, path in PAGES.items():
                taken, found.sizes[name] = server.timed(path, whole=name == WHOLE)
                found.first_s[name].append(taken + (found.first_s["job"][-1] if name == WHOLE else 0))
                if name != "job":  # which its script completes first
                    found.again_s[name].append(server.timed(path)[0])
            found.rates = {name: server.rate(PAGES[name]) for name in ("list", "job")}
            found.memory_mb = server.memory_mb()
    return found


def watched(root: Path, watchers: int) -> list[Result]:
    """Let many follow a job that runs, and return how the server did."""
    stop = threading.Event()
    growing = threading.Thread(target=grow, args=(root, stop))
    growing.start()
    time.sleep(3)
    with closing(Server(root)) as server:
        changes, times = server.followed("/jobs/bench/running", watchers)
        stop.set()
        growing.join()
        memory_mb = server.memory_mb()
    what = f"followed by {watchers} for {FOLLOWED_S} s"
    return [
        measured(f"{what}: page", "s", times, aim="ours <= 1"),
        measured(f"{what}: changes told and fetched", "", [changes]),
        measured(f"{what}: memory", "MB", [memory_mb]),
    ]


def results(found: Measured) -> Iterator[Result]:
    """Yield the figures of each page, and of the load."""
    for name in PAGES:
        yield measured(f"{name}: first", "s", found.first_s[name], aim="ours <= 1" if name == "job" else "")
        if name != "job":  # whose first answer is not whole
            yield measured(f"{name}: again", "s", found.again_s[name])
        yield measured(f"{name}: size", "kB", [found.sizes[name] / 1000], aim="ours <= 300" if name == WHOLE else "")
    for name, rate in found.rates.items():
        yield measured(f"{name}: {CLIENTS} clients at once", "pages/s", [rate], aim="ours >= 100")
    yield measured("memory after that load", "MB", [found.memory_mb])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--jobs", type=int, default=1000, help="other jobs in the list")
    parser.add_argument("--watchers", type=int, default=100)
    given = parser.parse_args()
    if given.nodes > MOST_ROWS:
        PAGES.update(GROUPS)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        made_logbook(root, given.nodes, given.seconds)
        other_jobs(root, given.jobs)
        found = asked(root, given.runs)
        followed = watched(root, given.watchers)
    report(__file__, [*results(found), *followed], duckdb=f"DuckDB {duckdb.__version__}")


if __name__ == "__main__":
    main()
