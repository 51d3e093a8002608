"""`piolet data pack` against bare mksquashfs with the same options, on a directory that you name.

    python bench/data_pack.py DIRECTORY [--rounds 7]

Both write beside each other in /var/tmp, in alternating order, from the kernel's cache. Two peers: mksquashfs
alone, which leaves the image in memory, and mksquashfs and `sync` of the image, since `pack` has it on the disk when
it ends.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from piolet import __version__
from piolet.tools.squashfs import make_argv


def seconds(argv: list[str]) -> float:
    """Run a command without its output and return its wall-clock seconds."""
    started = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="piolet-bench-") as work:
        image = Path(work) / "image.sqsh"
        bare = make_argv(options.directory, image)
        programs = {
            "bare": bare,
            "synced": ["sh", "-c", f"{shlex.join(bare)} && sync {image}"],
            "piolet": [sys.executable, "-m", "piolet", "data", "pack", str(options.directory), str(image)],
        }
        for turn in range(options.rounds + 1):
            for name in sorted(programs, reverse=bool(turn % 2)):
                image.unlink(missing_ok=True)
                taken = seconds(programs[name])
                if turn:  # the first turn warms the cache
                    times.setdefault(name, []).append(taken)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {name: medians["piolet"] / medians[name] for name in ("bare", "synced")}
    for name, values in times.items():
        spread = f"({min(values):.2f} - {max(values):.2f}, n={options.rounds})"
        print(f"{name:8} {medians[name]:6.2f} s  {spread}", file=sys.stderr)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}"
    print(json.dumps({"piolet": __version__, "machine": machine, "times_s": times, "ratios": ratios}, indent=2))


if __name__ == "__main__":
    main()
