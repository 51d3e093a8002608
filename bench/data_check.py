"""The walk of `piolet data check` against `find -printf` of the same values, on a tree of empty files made for it.

    python bench/data_check.py [--files 1000000] [--rounds 5] [--tree DIRECTORY]

The tree is warm in the kernel's cache for both; they run in alternating order. A table goes to stderr, JSON to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from piolet import __version__

PRINTED = "%s %b %A@ %T@ %n %m %p\n"
A_DIRECTORY = 1000


def make(root: Path, files: int) -> None:
    """Make a tree of `files` empty files, a thousand a directory."""
    for directory in range(files // A_DIRECTORY):
        path = root / f"{directory // 100:03d}" / f"{directory:05d}"
        path.mkdir(parents=True, exist_ok=True)
        for number in range(A_DIRECTORY):
            os.close(os.open(path / f"sample{number:04d}.jpg", os.O_CREAT | os.O_WRONLY))


def seconds(argv: list[str]) -> float:
    """Run a command without its output and return its wall-clock seconds."""
    started = time.perf_counter()
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    if done.returncode not in (0, 1):
        sys.exit(f"{argv} ended with {done.returncode}")
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tree", type=Path, help="use this tree instead of making one")
    options = parser.parse_args()
    tree = options.tree or Path(tempfile.mkdtemp(prefix="piolet-bench-", dir="/var/tmp"))
    try:
        if not options.tree:
            make(tree, options.files)
        print(json.dumps(measured(tree, options.rounds), indent=2))
    finally:
        if not options.tree:
            shutil.rmtree(tree)


def measured(tree: Path, rounds: int) -> dict[str, object]:
    """Return the times of both, their ratio and the largest memory of a process of the walk."""
    programs = {
        "find": ["find", str(tree), "-printf", PRINTED],
        "piolet": [sys.executable, "-m", "piolet", "data", "check", str(tree), "--format", "json"],
    }
    for argv in programs.values():
        seconds(argv)
    times: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(rounds):
        for name in sorted(programs, reverse=bool(turn % 2)):
            times[name].append(seconds(programs[name]))
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["piolet"] / medians["find"]
    for name, values in times.items():
        print(f"{name:8} {medians[name]:6.2f} s  ({min(values):.2f} - {max(values):.2f}, n={rounds})", file=sys.stderr)
    print(f"ratio    {ratio:6.2f}", file=sys.stderr)
    return {
        "piolet": __version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}",
        "load_before": os.getloadavg()[0],
        "times_s": times,
        "ratio": ratio,
        "largest_process_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000,
    }


if __name__ == "__main__":
    main()
