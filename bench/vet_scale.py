"""How long vetting takes at scale: judging made-up answers, and a lab of real slurmds beside a bare srun.

.venv/bin/python bench/vet_scale.py [--nodes 64] [--rounds 15] [--answers 2700]

All nodes of a lab share this machine's processors, so a step of Python that does nothing is measured as well: what it
takes longer than a bare srun, no vetting in Python can go below.
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
from compileall import compile_dir
from dataclasses import asdict
from pathlib import Path

import piolet
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


def interleaved(actions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each action, done in turn and every other time backwards."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(rounds):
        for name in list(actions)[:: -1 if number % 2 else 1]:
            taken[name] += seconds(actions[name], 1)
    return taken


def on(lab: Lab, nodes: int, *argv: str) -> Callable[[], object]:
    """Return an action that runs `argv` in an allocation of all nodes."""
    hold = ["salloc", "--quiet", f"--nodes={nodes}", "--gpus-per-node=4"]
    environment = os.environ | lab.environment()
    return lambda: subprocess.run([*hold, *argv], check=True, env=environment, stdout=subprocess.DEVNULL)


def told(name: str, taken: list[float]) -> float:
    """Print a row and return the median."""
    lower, middle, upper = statistics.quantiles(taken, n=4)
    print(f"{name:38} n={len(taken)} median {middle:6.2f} s  quartiles {lower:.2f} and {upper:.2f}")
    return middle


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--answers", type=int, default=2700)
    asked = parser.parse_args()
    print(f"{platform.node()}: {os.cpu_count()} CPUs, Python {platform.python_version()}, piolet {piolet.__version__}")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    compile_dir(Path(piolet.__file__).parent, quiet=1)  # as an installation does
    protocol = load_protocol("ml-training", Settings())
    names = NodeSet(f"node[1-{asked.answers}]")
    answers = [made_answer(node, protocol) for node in names]
    told(f"{asked.answers} answers judged", seconds(lambda: judge_answers(names, answers, protocol), asked.rounds))
    lab = up(Spec(name=f"bench-{secrets.token_hex(3)}", nodes=asked.nodes))
    try:
        taken = interleaved(
            {
                "srun true": on(lab, asked.nodes, "srun", "true"),
                "srun python -S -c pass": on(lab, asked.nodes, "srun", sys.executable, "-S", "-c", "pass"),
                "piolet vet run": on(lab, asked.nodes, sys.executable, "-m", "piolet", "vet", "run"),
            },
            asked.rounds,
        )
    finally:
        lab.down()
    bare = taken.pop("srun true")
    told(f"srun true, {asked.nodes} nodes", bare)
    for name, longer in taken.items():
        told(name, longer)
        told("    more than the srun of its round", [one - other for one, other in zip(longer, bare, strict=True)])


if __name__ == "__main__":
    main()
