"""How near the score comes to a truth that is known: GPUs of the simulator follow a script, the recorder records them.

    .venv/bin/python bench/score_accuracy.py

Four simulated H100s load for 10 s, then compute and communicate in steps of 5 s at four different levels, one GPU at
half of the others', write a checkpoint, and end. The truth is what the script and the phases' published or chosen
shares say (docs/reference/gpu-simulator.md). Counters differ from it by the simulator's noise of 2 %, by clocks
that take 0.2 s to rise, and by samples that fall across a change: each tells of the second before it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import measured, report

from piolet.core.native import DIRECTORY
from piolet.lab.gpu_models import profiles
from piolet.lab.gpus import arm_script, write_inventory
from piolet.logbook.layout import create
from piolet.logbook.reader import read
from piolet.logbook.records import JobRecord, NodeAllocation, write_job
from piolet.record.spec import AgentSpec
from piolet.score import JobScore, score_job

STEPS = 8
LEVELS = (0.9, 0.9, 0.45, 0.9)
"""Of each GPU while it computes."""

PLAN = (("startup", 10.0), *[each for _ in range(STEPS) for each in (("compute", 4.0), ("communication", 1.0))],
        ("checkpoint", 8.0))  # fmt: skip
LENGTH_S = sum(seconds for _, seconds in PLAN)
TENSOR, DRAM = 0.93, 0.80
Part = tuple[str, float]


def main() -> None:
    """Record, score and compare."""
    with tempfile.TemporaryDirectory() as name:
        score = _recorded(Path(name))
    print(f"phases: {', '.join(f'{phase.name} from {phase.from_s:.1f} s' for phase in score.phases)}")
    print(f"period: {score.period.seconds:.2f} s" if score.period else "period: none")
    report(__file__, [measured(what, "", [found], [truth], peer="truth") for what, truth, found in _compared(score)])


def _recorded(directory: Path) -> JobScore:
    """Let the GPUs follow the script from a time on, record until it is over, and score what was recorded."""
    gpus = write_inventory(directory / "gpu", node="node1", count=len(LEVELS))
    logbook = create(directory / "books", "bench", "1")
    environ = os.environ | {"LD_LIBRARY_PATH": str(DIRECTORY), "PIOLET_GPUSIM": str(directory / "gpu")}
    spec = AgentSpec(logbook.path, "node1", 1.0, 2.0, directory / "kmsg", dcgm="off")
    agent = subprocess.Popen(spec.argv(), env=environ)
    start_ns = time.time_ns() + 4_000_000_000
    for gpu, level in enumerate(LEVELS):
        arm_script(directory / "gpu", gpu, "; ".join(_step(part, level) for part in PLAN), time_ns=start_ns)
    time.sleep(4 + LENGTH_S + 1)
    agent.terminate()
    if agent.wait(timeout=30):
        sys.exit("the recorder failed")
    job = JobRecord("1", "bench", "ada", ("script",), allocation=(NodeAllocation("node1", gpus),),
                    program_started_ns=start_ns, program_ended_ns=start_ns + round(LENGTH_S * 1e9),
                    sample_interval_s=1.0)  # fmt: skip
    write_job(logbook.job, job)
    with read(logbook) as reader:
        return score_job(reader, job)


def _step(part: Part, level: float) -> str:
    phase, seconds = part
    return f"{phase} {seconds}" + (f" level={level}" if phase == "compute" else "")


def _saturation(phase: str, level: float) -> float:
    shares = profiles()[phase]
    share = max(shares.get("tensor", 0) / TENSOR, shares.get("fp32", 0), shares.get("dram", 0) / DRAM)
    return share * (level if phase == "compute" else 1.0)


def _compared(score: JobScore) -> list[tuple[str, float, float]]:
    each = [sum(_saturation(phase, level) * seconds for phase, seconds in PLAN) / LENGTH_S for level in LEVELS]
    truth = sum(each) / len(each)
    steady = sum((_saturation(phase, level) * seconds for phase, seconds in PLAN[1:] for level in LEVELS))
    return [
        ("score", truth, score.score or 0.0),
        ("steady, without start-up", steady / (LENGTH_S - PLAN[0][1]) / len(LEVELS), score.steady or 0.0),
        ("balance", truth / max(each), score.factors.balance if score.factors else 0.0),
        *((f"GPU {gpu.index}", each[gpu.index], gpu.score or 0.0) for gpu in score.gpus),
        ("start-up, s", PLAN[0][1], score.startup_s),
    ]


if __name__ == "__main__":
    main()
