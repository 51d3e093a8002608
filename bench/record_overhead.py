"""What the recorder costs: its CPU share and memory, and how much slower programs run beside it.

    python bench/record_overhead.py [--seconds 60] [--pairs 40] [--program CPU-bound syscall-bound] [--control]

Records 4 simulated GPUs at 1 Hz, with every collector that works here. One recorder runs all the time; for the runs
without it, it is stopped (SIGSTOP). Short runs of a program come in pairs, on off off on, and a pair's slow-down is the
ratio of its two times less one: of the time that passed, and of the processor time that the program took, which says
more on a machine that does other things as well. What else happens only slows a run down, so the quickest quarter of
the runs, on against off, says most. Intervals are those of 2000 bootstrap samples. With --control the recorder is never
stopped: what the pairs then differ by is the machine.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common import Result, Spread, measured, report

from piolet.core.native import DIRECTORY, native
from piolet.lab.gpus import write_inventory
from piolet.record.spec import AgentSpec

Pair = tuple[float, float]
"""A time with the recorder, and one without."""

GPUS = 4
WARM_UP_S = 3.0
PROGRAMS = {
    "CPU-bound": "sum(i * i for i in range(20_000_000))",
    "syscall-bound": "import os\nfor _ in range(3_500_000): os.getppid()",
}
RESAMPLES = 2_000


@contextmanager
def agent(directory: Path, interval_s: float = 1.0) -> Iterator[list[int]]:
    """Run an agent; yield the process ids of its supervisor and its sampler."""
    logbook = directory / f"book-{time.monotonic_ns()}"
    logbook.mkdir()
    spec = AgentSpec(logbook, "bench", interval_s, 5.0, directory / "kmsg")
    environ = os.environ | {"LD_LIBRARY_PATH": str(DIRECTORY), "PIOLET_GPUSIM": str(directory / "gpu")}
    process = subprocess.Popen(spec.argv(), env=environ)
    time.sleep(WARM_UP_S)
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield [process.pid, *map(int, children)]
    finally:
        process.terminate()
        process.wait(timeout=20)


def footprint(pids: Sequence[int], seconds: float) -> dict[str, float]:
    """Return the agent's CPU share of one core and its memory in MB (10^6 bytes), both processes together."""
    before = sum(map(cpu_s, pids))
    time.sleep(seconds)
    share = (sum(map(cpu_s, pids)) - before) / seconds
    memory = {name: sum(memory_mb(pid, name) for pid in pids) for name in ("Rss", "Pss", "Pss_Anon")}
    return {"cpu_share": share} | {f"{name.lower()}_mb": round(value, 1) for name, value in memory.items()}


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process to the nanosecond, all its threads together."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def memory_mb(pid: int, name: str) -> float:
    """Return one field of a process's memory."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:"))


def timed(program: str) -> dict[str, float]:
    """Return the seconds that one run lasted, and those of processor time that it took."""
    began = time.monotonic()
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", program], os.environ)
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit(f"the program ended with status {status}")
    return {"wall": time.monotonic() - began, "processor": usage.ru_utime + usage.ru_stime}


def slowdowns(name: str, pids: Sequence[int], pairs: int) -> Iterator[Result]:
    """Yield the slow-downs of a program in percent, by either clock: `pids` go on against `pids` stand still."""

    def run(number: int) -> dict[str, float]:
        for pid in pids:
            os.kill(pid, number)
        return timed(PROGRAMS[name])

    found: dict[str, list[tuple[float, float]]] = {"wall": [], "processor": []}
    for turn in range(pairs):
        times = {number: run(number) for number in (signal.SIGCONT, signal.SIGSTOP)[:: 1 if turn % 2 else -1]}
        for clock, values in found.items():
            values.append((times[signal.SIGCONT][clock], times[signal.SIGSTOP][clock]))
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    for clock, values in found.items():
        what = f"slow-down of a {name} program{'' if pids else ' by nothing'}, {clock} time"
        yield measured(what, "%", [100 * (on / off - 1) for on, off in values], aim="ours <= 0.5")
        yield Result(f"{what}: 95 % of its median", "%", _interval(values, median))
        yield Result(f"{what}: quickest quarter of the runs, 95 %", "%", _interval(values, undisturbed))


def _interval(pairs: Sequence[Pair], of: Callable[[Sequence[Pair]], float]) -> Spread:
    chance = random.Random(1)  # noqa: S311 - resampling
    cuts = statistics.quantiles((of(chance.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES)), n=40)
    return Spread(len(pairs), of(pairs), cuts[0], cuts[-1])


def median(pairs: Sequence[Pair]) -> float:
    """Return the median slow-down in percent."""
    return 100 * statistics.median(on / off - 1 for on, off in pairs)


def undisturbed(pairs: Sequence[Pair]) -> float:
    """Return by how many percent the time is longer that the quickest quarter of the runs stays below."""
    on, off = (statistics.quantiles(times, n=4)[0] for times in zip(*pairs, strict=True))
    return 100 * (on / off - 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--program", nargs="*", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--control", action="store_true")
    options = parser.parse_args()
    native("libnvidia-ml.so.1")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "kmsg").touch()
        write_inventory(directory / "gpu", node="bench", count=GPUS)
        with agent(directory) as pids:
            cost = footprint(pids, options.seconds)
            moved = () if options.control else pids
            slow = [each for name in options.program for each in slowdowns(name, moved, options.pairs)]
    agent_of = f"agent with {GPUS} GPUs at 1 Hz"
    results = [
        measured(f"{agent_of}, of a core", "%", [100 * cost["cpu_share"]], aim="ours <= 1"),
        measured(f"{agent_of}, resident", "MB", [cost["rss_mb"]], aim="ours <= 70"),
        measured(f"{agent_of}, proportional set size", "MB", [cost["pss_mb"]]),
    ]
    report(__file__, [*results, *slow])


if __name__ == "__main__":
    main()
