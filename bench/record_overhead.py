"""What the recorder costs: its CPU share and memory, and how much slower programs run beside it.

    python bench/record_overhead.py [--pairs 15] [--seconds 60]

Records 4 simulated GPUs at 1 Hz. Programs run in pairs, on and off, in alternating order; a pair's slow-down is the
ratio of its two times less one, of the time that passed and of the processor time that the program took; on a machine
that does other things as well only the second says much.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common import Result, measured, report

from piolet.core.native import DIRECTORY, native
from piolet.lab.gpus import write_inventory
from piolet.record.spec import AgentSpec

GPUS = 4
WARM_UP_S = 3.0
PROGRAMS = {
    "CPU-bound": "sum(i * i for i in range(12_000_000))",
    "syscall-bound": "import os\nfor _ in range(1_500_000): os.getppid()",
}


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


def pair(program: str, directory: Path, *, on_first: bool) -> dict[str, float]:
    """Return the slow-downs of one pair of runs."""
    times: dict[bool, dict[str, float]] = {}
    for recorded in (True, False) if on_first else (False, True):
        if recorded:
            with agent(directory):
                times[recorded] = timed(program)
        else:
            times[recorded] = timed(program)
    return {clock: times[True][clock] / times[False][clock] - 1 for clock in times[True]}


def slowdowns(name: str, program: str, directory: Path, pairs: int) -> list[Result]:
    """Return the slow-downs of a program in percent, by either clock."""
    found = [pair(program, directory, on_first=bool(turn % 2)) for turn in range(pairs)]
    return [
        measured(
            f"slow-down of a {name} program, {clock} time",
            "%",
            [100 * each[clock] for each in found],
            aim="ours <= 0.5",
        )
        for clock in found[0]
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    native("libnvidia-ml.so.1")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "kmsg").touch()
        write_inventory(directory / "gpu", node="bench", count=GPUS)
        with agent(directory) as pids:
            cost = footprint(pids, options.seconds)
        slow = [slowdowns(name, program, directory, options.pairs) for name, program in PROGRAMS.items()]
    agent_of = f"agent with {GPUS} GPUs at 1 Hz"
    results = [
        measured(f"{agent_of}, of a core", "%", [100 * cost["cpu_share"]], aim="ours <= 1"),
        measured(f"{agent_of}, resident", "MB", [cost["rss_mb"]], aim="ours <= 70"),
        measured(f"{agent_of}, proportional set size", "MB", [cost["pss_mb"]]),
    ]
    report(__file__, [*results, *(each for one in slow for each in one)])


if __name__ == "__main__":
    main()
