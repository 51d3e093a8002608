"""How long `piolet lab` takes to bring nodes up and down, beside the same daemons started plainly.

    python bench/lab_start.py [--nodes 4 16 64] [--runs 10]

The peer is what one would type: munged, slurmctld and one slurmd after the other with the same configuration, without
namespaces, until sinfo shows every node idle. Lab and peer take turns; the first turn of each size warms the page
cache and is not counted. Times are seconds of wall clock within a running Python. Needs root and Slurm.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time

from common import Result, measured, report, version

from piolet.core.run import SystemRunner
from piolet.lab import Lab, Spec, up
from piolet.lab.directory import labs_directory
from piolet.lab.ending import remove
from piolet.lab.files import write_files
from piolet.lab.network import choose_place
from piolet.lab.processes import MARKER


def main() -> None:
    """Measure and report."""
    arguments = _arguments()
    results = [result for nodes in arguments.nodes for result in measure(nodes, arguments.runs)]
    report(__file__, results, slurm=version("slurmctld", "-V"))


def measure(nodes: int, runs: int) -> list[Result]:
    """Return the times of `runs` turns of the lab and its peer, after one that warms up."""
    begun, ended, plain = zip(*[(*lab_turn(nodes), peer_turn(nodes)) for _ in range(runs + 1)][1:], strict=True)
    return [
        measured(f"lab of {nodes} nodes up", "s", begun, plain, peer="daemons started plainly"),
        measured(f"lab of {nodes} nodes down", "s", ended),
    ]


def lab_turn(nodes: int) -> tuple[float, float]:
    """Return the seconds that a new lab takes to come up and to go down."""
    began = time.perf_counter()
    lab = up(Spec(name="bench", nodes=nodes))
    middle = time.perf_counter()
    lab.down()
    return middle - began, time.perf_counter() - middle


def peer_turn(nodes: int) -> float:
    """Return the seconds from the first daemon to the last idle node without a lab."""
    spec = Spec(name="bench-peer", nodes=nodes)
    lab = Lab(labs_directory() / spec.name, spec, choose_place(spec, (), SystemRunner()))
    lab.directory.mkdir(parents=True)
    write_files(lab)
    environment = os.environ | {"SLURM_CONF": str(lab.slurm_conf), MARKER: str(lab.directory)}
    munge = lab.directory / "munge"
    private = [f"--key-file={munge}/private/key", f"--seed-file={munge}/private/seed"]
    public = [f"--socket={lab.munge_socket}", f"--pid-file={munge}/pid", f"--log-file={munge}/log"]
    began = time.perf_counter()
    try:
        subprocess.run(["munged", *private, *public], check=True, env=environment)
        subprocess.run(["slurmctld", "-c"], check=True, env=environment)
        for node in lab.nodes:
            subprocess.run(["slurmd", "-N", node], check=True, env=environment)
        while idle_nodes(environment) < nodes:
            time.sleep(0.02)
        return time.perf_counter() - began
    finally:
        remove(lab.directory)


def idle_nodes(environment: dict[str, str]) -> int:
    """Return how many nodes sinfo shows as idle."""
    argv = ["sinfo", "--noheader", "--Node", "--states=idle", "--format=%N %t"]
    answer = subprocess.run(argv, check=False, capture_output=True, env=environment, text=True)
    return sum(line.endswith(" idle") for line in answer.stdout.splitlines())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--runs", type=int, default=10)
    return parser.parse_args()


if __name__ == "__main__":
    main()
