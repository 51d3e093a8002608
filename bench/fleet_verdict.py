"""What the fleet's helpers cost a node: the time of one run of each, beside a shell that does nothing.

    python bench/fleet_verdict.py [--runs 200]

The file of verdicts is in a temporary directory, not on a shared file system.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

from common import in_turns, measured, report

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
        taken = in_turns(runs, {name: lambda argv=argv: ran_ms(argv) for name, argv in commands.items()})
    bare = taken.pop("sh -c :")
    results = [
        measured(name, "ms", times, bare, peer="sh that does nothing", aim="ours <= 20")
        for name, times in taken.items()
    ]
    report(__file__, results, sh=Path("/bin/sh").resolve().name)


def ran_ms(argv: list[str]) -> float:
    """Return how long one run took."""
    began = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env={"PATH": os.defpath, "SLURMD_NODENAME": "node1"})
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
