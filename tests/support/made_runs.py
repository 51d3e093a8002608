"""A scaling study for tests: runs of one program on 1, 2, 4 ... nodes, each somewhat less efficient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import made_logbooks

from piolet.logbook.layout import Logbook

TOKENS = 100_000.0
"""Tokens of a step of one node."""


def scaling(root: Path, nodes: Sequence[int] = (1, 2, 4), *, seconds: int = 60, gpus: int = 4) -> list[Logbook]:
    """Write a logbook for each number of nodes; a step takes 2 s on one node and 5 % more with every doubling."""
    return [_run(root, number, count, seconds, gpus) for number, count in enumerate(nodes)]


def _run(root: Path, number: int, count: int, seconds: int, gpus: int) -> Logbook:
    slower = 1.05**number
    names = [f"node{each}" for each in range(1, count + 1)]
    job = made_logbooks.job(names, gpus, seconds, job_id=str(5000 + number), name="llm-7b", simulated=("GPUs",))
    activity = {"tensor_active": 0.55 / slower, "sm_active": 0.85 / slower, "dram_active": 0.3, "power_w": 590.0}
    rows = made_logbooks.constant(job, seconds, **activity, energy_j=None)
    steps = int(seconds / (2 * slower))
    told = [_told(step, step * 2 * slower, name, value)
            for step in range(steps)
            for name, value in (("tokens", TOKENS * count), ("parameters", 7e9))]  # fmt: skip
    return made_logbooks.write(root, job, [*rows, *told])


def _told(step: int, time_s: float, name: str, value: float) -> tuple[str, dict[str, object]]:
    time_ns = made_logbooks.START_NS + round(time_s * made_logbooks.SECOND_NS)
    return "user", {"time_ns": time_ns, "node": "node1", "rank": 0, "name": name, "value": value, "step": step}
