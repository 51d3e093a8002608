"""How well the fleet finds lemons: precision@k of its ranking and of raw failure counts, on the same made-up histories.

    python bench/fleet_lemons.py [--nodes 400] [--days 28] [--lemons 0.02] [--user 0.24] [--seeds 20]

A month of jobs of 1 to 64 nodes. Nodes fail 6.5 times in 1000 node-days, lemons 20 times as often; a failure ends the
job. So many failures of jobs are the users' own that they are the given share of all; half of these say so by their
exit code, as workload. Half of the hardware failures name their culprit: Slurm lost the node, its GPU had a fatal
error, or its rank failed first; for one failure in ten of those the first rank that fails is another node's. The peer
counts for each node the failed jobs that it was part of, as a site does with sacct.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass

from common import measured, report

from piolet.core.nouns import Status
from piolet.fleet import blame
from piolet.fleet.evidence import Evidence, Kind, Source, made_id

RATE_PER_DAY = 6.5e-3
WORSE = 20.0
START_NS = 1_800_000_000_000_000_000
DAY_S = 86_400.0
WRONG_RANK = 0.1
SIZES = (0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6)


def main() -> None:
    """Simulate, rank and print."""
    arguments = _arguments()
    ours, raw, took = [], [], []
    for seed in range(1, arguments.seeds + 1):
        world = Month(arguments, seed)
        began = time.perf_counter()
        ranked = [one.node for one in blame.ranking(world.evidence, START_NS + round(arguments.days * DAY_S * 1e9))]
        took.append(time.perf_counter() - began)
        counted = sorted(world.failed, key=lambda node: (-world.failed[node], node))
        ours.append(precision(ranked, world.lemons))
        raw.append(precision(counted, world.lemons))
    what = f"precision@k of {arguments.nodes} nodes over {arguments.days:g} days"
    results = [
        measured(what, "", ours, raw, peer="failed jobs counted"),
        measured(
            "histories on which it is worse", f"of {len(ours)}", [sum(a < b for a, b in zip(ours, raw, strict=True))]
        ),
        measured("a ranking", "s", took),
    ]
    report(__file__, results)


class Month:
    """A month of jobs that follow one another on the nodes: what is true, and what was seen of it."""

    def __init__(self, arguments: argparse.Namespace, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - a simulation
        self._nodes = [f"n{number:03d}" for number in range(arguments.nodes)]
        self.lemons = frozenset(self._chance.sample(self._nodes, max(1, round(arguments.lemons * arguments.nodes))))
        self._rates = {node: RATE_PER_DAY * (WORSE if node in self.lemons else 1.0) for node in self._nodes}
        self._own = statistics.fmean(self._rates.values()) * arguments.user / (1 - arguments.user)
        self.evidence: list[Evidence] = []
        self.failed: Counter[str] = Counter()
        self._run(arguments.days * DAY_S)

    def _run(self, until_s: float) -> None:
        free_s = dict.fromkeys(self._nodes, 0.0)
        number = 0
        while min(free_s.values()) < until_s:
            size = min(2 ** self._chance.choice(SIZES), len(self._nodes))
            chosen = sorted(self._nodes, key=lambda node: (free_s[node], self._chance.random()))[:size]
            began_s = max(free_s[node] for node in chosen)
            free_s |= dict.fromkeys(chosen, began_s + self._job(str(number), chosen, began_s))
            number += 1

    def _job(self, job: str, chosen: list[str], began_s: float) -> float:
        """Run a job, note what is seen of its end, and return how long it ran, in seconds."""
        meant_s = min(self._chance.expovariate(1 / (8 * 3600)) + 600, 2 * DAY_S)
        hazards = [self._rates[node] / DAY_S for node in chosen]
        own = self._own * len(chosen) / DAY_S
        ran_s = min(meant_s, self._chance.expovariate(sum(hazards) + own))
        end = End(job, chosen, began_s + ran_s, ran_s)
        if ran_s == meant_s:
            self.evidence.append(end.told("COMPLETED"))
            return ran_s
        self.failed.update(chosen)
        if self._chance.random() < own / (sum(hazards) + own):
            domain = self._chance.choice(["workload", ""])
            self.evidence.append(end.told("FAILED", domain=domain, culprit=self._chance.choice(chosen)))
        else:
            self._hardware(end, self._chance.choices(chosen, hazards)[0])
        return ran_s

    def _hardware(self, end: End, culprit: str) -> None:
        """Note a failure of hardware: half name the culprit, in one of three ways."""
        match self._chance.choice(["", "", "", "lost", "xid", "rank"]):
            case "":
                self.evidence.append(end.told("FAILED"))
            case "rank":
                named = self._chance.choice(end.nodes) if self._chance.random() < WRONG_RANK else culprit
                self.evidence.append(end.told("FAILED", culprit=named))
            case "lost":
                self.evidence += [end.told("NODE_FAIL"), end.points_at(culprit, Kind.NODE, "NODE_FAIL")]
            case "xid":
                self.evidence += [end.told("FAILED"), end.points_at(culprit, Kind.XID, "79")]


@dataclass(frozen=True, slots=True)
class End:
    """The end of a job."""

    job: str
    nodes: list[str]
    at_s: float
    ran_s: float

    def told(self, state: str, *, domain: str = "", culprit: str = "") -> Evidence:
        """Return what Slurm and the logbook tell of it."""
        return Evidence(
            made_id(self.job),
            START_NS + round(self.at_s * 1e9),
            Kind.JOB,
            state,
            nodes=",".join(self.nodes),
            status=Status.PASS if state == "COMPLETED" else Status.FAIL,
            job=self.job,
            culprit=culprit,
            domain=domain,
            value=self.ran_s,
            source=Source.SLURM,
        )

    def points_at(self, node: str, kind: Kind, code: str) -> Evidence:
        """Return what points at a node."""
        time_ns = START_NS + round(self.at_s * 1e9)
        return Evidence(made_id(self.job, code), time_ns, kind, code, node, job=self.job)


def precision(ranked: list[str], lemons: frozenset[str]) -> float:
    """Return which part of the first k are lemons, k being their number."""
    return len(lemons & set(ranked[: len(lemons)])) / len(lemons)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=400)
    parser.add_argument("--days", type=float, default=28.0)
    parser.add_argument("--lemons", type=float, default=0.02)
    parser.add_argument("--user", type=float, default=0.24)
    parser.add_argument("--seeds", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
