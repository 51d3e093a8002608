"""How long vetting takes at scale: judging made-up answers, and a lab of real slurmds beside a bare srun.

.venv/bin/python bench/vet_scale.py [--nodes 64] [--rounds 3] [--answers 2700]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict

from piolet import __version__
from piolet.core.config import Settings
from piolet.core.nodeset import NodeSet
from piolet.core.nouns import CheckResult, Gpu, Status
from piolet.lab import Lab, Spec, up
from piolet.vet import judge_answers, load_protocol
from piolet.vet.protocol import Protocol


def made_answer(node: str, protocol: Protocol) -> str:
    """Return what a healthy node with four GPUs answers."""
    checks = [asdict(CheckResult(check.name, node, Status.PASS, "fine", 1.0)) for check in protocol.checks]
    gpus = [asdict(Gpu(index, f"GPU-{node}-{index}", "H100", 1)) for index in range(4)]
    return json.dumps({"piolet_vet": 1, "node": node, "checks": checks, "gpus": gpus})


def seconds(action: Callable[[], object], rounds: int) -> list[float]:
    """Return the wall-clock seconds of each round."""
    taken = []
    for _ in range(rounds):
        started = time.monotonic()
        action()
        taken.append(time.monotonic() - started)
    return taken


def on(lab: Lab, nodes: int, *argv: str) -> Callable[[], object]:
    """Return an action that runs `argv` in an allocation of all nodes."""
    hold = ["salloc", "--quiet", f"--nodes={nodes}", "--gpus-per-node=4"]
    environment = os.environ | lab.environment()
    return lambda: subprocess.run([*hold, *argv], check=True, env=environment, stdout=subprocess.DEVNULL)


def told(name: str, taken: list[float]) -> float:
    """Print a row and return the median."""
    middle = statistics.median(taken)
    print(f"{name:38} n={len(taken)} median {middle:6.2f} s  from {min(taken):.2f} to {max(taken):.2f}")
    return middle


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--answers", type=int, default=2700)
    asked = parser.parse_args()
    print(f"{platform.node()}: {os.cpu_count()} CPUs, Python {platform.python_version()}, piolet {__version__}")
    protocol = load_protocol("ml-training", Settings())
    names = NodeSet(f"node[1-{asked.answers}]")
    answers = [made_answer(node, protocol) for node in names]
    told(f"{asked.answers} answers judged", seconds(lambda: judge_answers(names, answers, protocol), asked.rounds))
    lab = up(Spec(name=f"bench-{secrets.token_hex(3)}", nodes=asked.nodes))
    try:
        bare = told(f"srun true, {asked.nodes} nodes", seconds(on(lab, asked.nodes, "srun", "true"), asked.rounds))
        command = (sys.executable, "-m", "piolet", "vet", "run", "--protocol", "quick")
        vetted = told(f"piolet vet run, {asked.nodes} nodes", seconds(on(lab, asked.nodes, *command), asked.rounds))
    finally:
        lab.down()
    print(f"vetting costs {vetted - bare:.2f} s more than a bare srun, {vetted / bare:.2f} times as much")


if __name__ == "__main__":
    main()
