"""Random jobs under random faults on a lab, then what must hold whatever happened. Needs root.

    python tests/soak [--minutes 30] [--nodes 16] [--seed 1]

Exit status 1 if an invariant does not hold; the counts are printed as JSON. The seed fixes what is asked and
broken, not when things happen.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from random import Random

import invariants
from faults import Struck, strike
from jobs import Asked, ask, finish
from world import World, world


def soak(place: World, minutes: float, seed: int) -> tuple[list[Asked], list[Struck]]:
    """Ask and break until the time is over."""
    until_s = time.monotonic() + minutes * 60
    over = lambda: time.monotonic() > until_s  # noqa: E731 - shared by both
    struck: list[Struck] = []
    breaking = threading.Thread(target=lambda: struck.extend(strike(place, Random(seed), over)))
    breaking.start()
    asked = ask(place, Random(seed + 1), over)
    breaking.join()
    place.repair()
    return asked, struck


def main() -> int:
    """Soak, and print what held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    with world(options.nodes) as place:
        asked, struck = soak(place, options.minutes, options.seed)
        late = finish(asked)
        counts.update(f"fault {each.kind}" for each in struck)
        broken = [
            *invariants.every_command_ends_and_says_why(asked, late, counts),
            *invariants.no_job_is_lost(place, counts),
            *invariants.no_logbook_is_torn(place, counts),
            *invariants.no_bad_node_is_used(place, struck, counts),
            *invariants.nothing_is_left(place, counts),
        ]
        for line in broken:
            print(f"BROKEN {line}", file=sys.stderr)
        _show(broken, asked)
    print(json.dumps({"broken": len(broken)} | dict(sorted(counts.items())), indent=2))
    return 1 if broken else 0


def _show(broken: list[str], asked: list[Asked]) -> None:
    """Print the last words of the commands that a broken invariant names: the files are about to go."""
    for one in asked:
        if any(one.output.name in line for line in broken):
            print(f"--- {one.output.name}: {' '.join(one.argv)}\n{one.said[-2000:]}", file=sys.stderr)


sys.exit(main())
