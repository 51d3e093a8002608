"""What the recorder costs: its CPU share and memory, and how much slower programs run beside it.

    python bench/record_overhead.py [--pairs 10] [--seconds 60] [--output FILE]

Records 4 simulated GPUs at 1 Hz. Programs run in pairs, on and off, in alternating order; a pair's slow-down is the
ratio of its two times less one, of the time that passed and of the processor time that the program took; on a machine
that does other things as well only the second says much. Prints a table on stderr, with the budgets, and JSON on
stdout; exits 1 if the recorder takes more of a processor or of memory than its budget.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from piolet import __version__
from piolet.core.native import DIRECTORY, native
from piolet.lab.gpus import write_inventory
from piolet.record.spec import AgentSpec

GPUS = 4
WARM_UP_S = 3.0
CPU_BUDGET, MEMORY_BUDGET_MB = 0.01, 70
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


def slowdown(program: str, directory: Path, pairs: int) -> dict[str, dict[str, Any]]:
    """Return the spread of the slow-downs of a program, by either clock."""
    found = [pair(program, directory, on_first=bool(turn % 2)) for turn in range(pairs)]
    return {clock: spread([each[clock] for each in found]) for clock in found[0]}


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return n, the median and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"n": len(values), "median": middle, "q25": low, "q75": high}


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())  # fmt: skip
    import duckdb  # noqa: PLC0415 - for its version only

    versions = {"piolet": __version__, "python": platform.python_version(), "duckdb": duckdb.__version__}
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(), "versions": versions}


def table(result: dict[str, Any]) -> str:
    """Return the result for people."""
    agent_row = result["agent"]
    where = result["machine"]
    lines = [
        f"{where['cpu']}, {where['cores']} cores, Linux {where['kernel']}, {where['versions']}",
        (
            f"agent, {GPUS} GPUs at 1 Hz over {result['seconds']:g} s: {agent_row['cpu_share']:.2%} of a core, "
            f"PSS {agent_row['pss_mb']} MB (of it anonymous {agent_row['pss_anon_mb']}), RSS {agent_row['rss_mb']} MB"
        ),
        f"budget: {CPU_BUDGET:.0%} of a core {kept(agent_row['cpu_share'] <= CPU_BUDGET)}",
        f"budget: {MEMORY_BUDGET_MB} MB resident {kept(agent_row['rss_mb'] <= MEMORY_BUDGET_MB)}",
        f"{'program':15} {'clock':10} {'n':>3} {'slow-down':>10} {'q25':>8} {'q75':>8}",
    ]
    for name, clocks in result["slowdown"].items():
        for clock, values in clocks.items():
            figures = f"{values['median']:10.2%} {values['q25']:8.2%} {values['q75']:8.2%}"
            lines.append(f"{name:15} {clock:10} {values['n']:3} {figures}")
    return "\n".join(lines)


def kept(holds: bool) -> str:  # noqa: FBT001 - the one thing that it is about
    """Return the word for a budget."""
    return "kept" if holds else "EXCEEDED"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    native("libnvidia-ml.so.1")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "kmsg").touch()
        write_inventory(directory / "gpu", node="bench", count=GPUS)
        with agent(directory) as pids:
            cost = footprint(pids, options.seconds)
        slow = {label: slowdown(program, directory, options.pairs) for label, program in PROGRAMS.items()}
    result = {"machine": machine(), "seconds": options.seconds, "agent": cost, "slowdown": slow}
    print(table(result), file=sys.stderr)
    print(json.dumps(result, indent=2))
    if options.output:
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    if cost["cpu_share"] > CPU_BUDGET or cost["rss_mb"] > MEMORY_BUDGET_MB:
        sys.exit(1)


if __name__ == "__main__":
    main()
