"""The program of bench/lab_incidents.py: it waits as long as it is told, and reports steps and phases."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "examples/01-first-climb"))

from report import report

STEP_S = 2.5
CHECKPOINTS_S = (30.0, 60.0, 90.0)
USUAL_S = 3.0


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--fail", type=int, help="the rank that raises")
    parser.add_argument("--at", type=float, default=0.0, help="when it does, in seconds")
    parser.add_argument("--stall", type=float, help="write checkpoints; the last one takes so long")
    given = parser.parse_args()
    rank, began = int(os.environ.get("SLURM_PROCID", "0")), time.monotonic()
    print("training begins", flush=True)
    report(phase="training")
    checkpoints, step = list(CHECKPOINTS_S) if given.stall else [], 0
    while (elapsed := time.monotonic() - began) < given.seconds:
        if given.fail is not None and elapsed > given.at:
            fail(rank, rank == given.fail)
        if checkpoints and elapsed > checkpoints[0]:
            checkpoints.pop(0)
            report(phase="checkpoint")
            time.sleep(USUAL_S if checkpoints else given.stall)
            report(phase="training")
        time.sleep(STEP_S)
        step += 1
        report(step=step, loss=round(2.3 / (1 + step / 50), 4))


def fail(rank: int, mine: bool) -> None:  # noqa: FBT001 - one of two roles
    """Say what PyTorch says: the rank that fails raises, the others run into NCCL's time-out."""
    if not mine:
        time.sleep(5)
        sys.exit(f"[rank{rank}]: Watchdog caught collective operation timeout: WorkNCCL(OpType=ALLREDUCE)")
    print(f"[rank{rank}]: Traceback (most recent call last):\n[rank{rank}]: ValueError: bad sample", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
