"""What the fleet's helpers cost a node: the time of one run of each, beside a shell that does nothing.

    python bench/fleet_verdict.py [--runs 200]

The runs alternate. The file of verdicts is in a temporary directory, not on a shared file system.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from piolet import __version__
from piolet.fleet import verdicts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        verdicts.write(directory, {"node1": f"suspect {round(time.time()) + 3600} a fatal error of the GPU (xid:79)\n"})
        commands = {"sh -c :": ["/bin/sh", "-c", ":"]} | {name: [str(directory / name)] for name in verdicts.HELPERS}
        taken: dict[str, list[float]] = {command: [] for command in commands}
        for _ in range(runs):
            for command, argv in commands.items():
                taken[command].append(ran_ms(argv))
    print(f"cpus {os.cpu_count()} · python {platform.python_version()} · /bin/sh {Path('/bin/sh').resolve().name}")
    print(f"piolet {__version__} · n {runs} · median (min-max)")
    least = statistics.median(taken["sh -c :"])
    for command, times in taken.items():
        median = statistics.median(times)
        print(f"{command:16} {median:6.2f} ms ({min(times):.2f}-{max(times):.2f}); ratio {median / least:.1f}")


def ran_ms(argv: list[str]) -> float:
    """Return how long one run took."""
    began = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env={"PATH": os.defpath, "SLURMD_NODENAME": "node1"})
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
