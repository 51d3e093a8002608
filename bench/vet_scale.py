"""How long vetting takes at scale: judging made-up answers, and a lab of real slurmds beside a bare srun.

.venv/bin/python bench/vet_scale.py [--nodes 64] [--rounds 15] [--answers 2700]

All nodes of a lab share this machine's processors, so a step of Python that does nothing is measured as well: what it
takes longer than a bare srun, no vetting in Python can go below.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
from collections.abc import Callable
from compileall import compile_dir
from dataclasses import asdict
from functools import partial
from pathlib import Path

from common import in_turns, measured, report, seconds, timed, version

import piolet
from piolet.core.nodeset import NodeSet
from piolet.core.nouns import CheckResult, Gpu, Status
from piolet.core.settings import Settings
from piolet.lab import Lab, Spec, up
from piolet.vet import judge_answers, load_protocol
from piolet.vet.protocol import Protocol


def made_answer(node: str, protocol: Protocol) -> str:
    """Return what a healthy node with four GPUs answers."""
    checks = [asdict(CheckResult(check.name, node, Status.PASS, "fine", 1.0)) for check in protocol.checks]
    gpus = [asdict(Gpu(index, f"GPU-{node}-{index}", "H100", 1)) for index in range(4)]
    return json.dumps({"piolet_vet": 1, "node": node, "checks": checks, "gpus": gpus})


def on(lab: Lab, nodes: int, *argv: str) -> Callable[[], float]:
    """Return what measures `argv` in an allocation of all nodes, in seconds."""
    hold = ["salloc", "--quiet", f"--nodes={nodes}", "--gpus-per-node=4"]
    return partial(seconds, [*hold, *argv], env=os.environ | lab.environment())


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--answers", type=int, default=2700)
    asked = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    compile_dir(Path(piolet.__file__).parent, quiet=1)  # as an installation does
    protocol = load_protocol("ml-training", Settings())
    names = NodeSet(f"node[1-{asked.answers}]")
    answers = [made_answer(node, protocol) for node in names]
    judged = [timed(lambda: judge_answers(names, answers, protocol)) for _ in range(asked.rounds)]
    lab = up(Spec(name=f"bench-{secrets.token_hex(3)}", nodes=asked.nodes))
    try:
        ways = {
            "srun true": on(lab, asked.nodes, "srun", "true"),
            "empty": on(lab, asked.nodes, "srun", sys.executable, "-S", "-c", "pass"),
            "vet": on(lab, asked.nodes, sys.executable, "-m", "piolet", "vet", "run"),
        }
        taken = in_turns(asked.rounds, ways)
    finally:
        lab.down()
    bare, peer, where = taken.pop("srun true"), "srun true", f"on {asked.nodes} nodes of one machine"
    more = {name: [one - other for one, other in zip(longer, bare, strict=True)] for name, longer in taken.items()}
    report(
        __file__,
        [
            measured(f"{asked.answers} answers judged", "s", judged, aim="ours <= 2"),
            measured(f"piolet vet run {where}", "s", taken["vet"], bare, peer=peer),
            measured("    more than srun true of its round", "s", more["vet"], aim="ours <= 1.5"),
            measured(f"srun python -S -c pass {where}", "s", taken["empty"], bare, peer=peer),
            measured("    more than srun true of its round", "s", more["empty"]),
        ],
        slurm=version("srun", "--version"),
    )


if __name__ == "__main__":
    main()
