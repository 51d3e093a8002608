"""How often to write a checkpoint: Young's interval and Daly's refinement of it.

J. W. Young, A first order approximation to the optimum checkpoint interval, CACM 17(9), 1974. J. T. Daly, A higher
order estimate of the optimum checkpoint interval for restart dumps, FGCS 22(3), 2006.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Cadence:
    """A checkpoint every `interval_s` seconds of work.

    `lost_ratio` is the share of time that goes to writing and to work done twice, to the first order. `bounded_by`
    says what keeps the interval longer than the optimum; empty if nothing does.
    """

    interval_s: float
    young_s: float
    lost_ratio: float
    bounded_by: str = ""


def cadence(write_s: float, mtbf_s: float, *, persist_s: float = 0.0, restart_s: float = 0.0) -> Cadence:
    """Return how often a job should write a checkpoint.

    `write_s` is the time for which training stands still for one, `mtbf_s` the mean time between failures of the whole
    job, `persist_s` the time until an asynchronous checkpoint is safe (the next cannot start before), `restart_s` the
    time from a failure until training goes on. All in seconds; ValueError unless the first two are positive and the
    others are not negative.
    """
    if not (write_s > 0 and mtbf_s > 0 and persist_s >= 0 and restart_s >= 0):
        raise ValueError("the times must be positive")
    young_s = math.sqrt(2 * write_s * mtbf_s)
    best_s = _daly_s(write_s, mtbf_s)
    interval_s = max(best_s, persist_s)
    lost = write_s / (interval_s + write_s) + (interval_s / 2 + restart_s) / mtbf_s
    bounded_by = "the time until a checkpoint is safe" if persist_s > best_s else ""
    return Cadence(interval_s, young_s, min(lost, 1.0), bounded_by)


def _daly_s(write_s: float, mtbf_s: float) -> float:
    """Return Daly's interval (his equation 37): of work between two checkpoints, without the time of writing."""
    if write_s >= 2 * mtbf_s:
        return mtbf_s
    root = math.sqrt(write_s / (2 * mtbf_s))
    return math.sqrt(2 * write_s * mtbf_s) * (1 + root / 3 + root**2 / 9) - write_s


def job_mtbf_s(node_mtbf_s: float, nodes: int) -> float:
    """Return the mean time between failures of a job on `nodes` nodes that fail independently."""
    return node_mtbf_s / nodes


@dataclass(frozen=True, slots=True)
class Footprint:
    """What checkpoints take: written a day, and kept at any time with the one being written."""

    a_day: float
    bytes_a_day: float
    inodes_a_day: float
    kept_bytes: int
    kept_inodes: int


def footprint(interval_s: float, write_s: float, *, size_bytes: int, files: int, keep: int) -> Footprint:
    """Return what checkpoints of `size_bytes` in `files` files take, of which the latest `keep` are kept."""
    a_day = DAY_S / (interval_s + write_s)
    return Footprint(a_day, a_day * size_bytes, a_day * files, (keep + 1) * size_bytes, (keep + 1) * files)
