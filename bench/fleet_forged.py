"""Malformed and forged reports against the fleet's service: how many are taken, and whether it still answers.

    python bench/fleet_forged.py [--number 10000] [--seed 1]

Each is a good report that was spoiled in one of many ways: bytes cut off or put in, a value of another type, an unknown
key, another node, a made-up or altered token, another's scope, no token, a tampered JSON Web Token. They go over a real
socket to a service of 40 nodes that no Slurm stands behind. In between, every hundredth is good, and must be taken: so
it is shown that the service is up, and what the others were refused for.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx2

from piolet.fleet import center
from piolet.fleet.evidence import Evidence

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
import fleet_service
from common import measured, report

GOOD_EVERY = 100


def main() -> None:
    """Send, count and print."""
    arguments = _arguments()
    chance = random.Random(arguments.seed)  # noqa: S311 - a benchmark
    answers: Counter[int] = Counter()
    good = 0
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "fleet.db"
        with fleet_service.listening(path) as (address, tokens), httpx2.Client() as client:
            for number in range(arguments.number):
                if number % GOOD_EVERY == 0:
                    headers, body = {"Authorization": f"Bearer {tokens['reporter']}"}, good_report(f"good{number}")
                    client.post(f"{address}/v1/evidence", content=body, headers=headers).raise_for_status()
                    good += 1
                headers, body = spoiled(chance, tokens, number)
                answers[client.post(f"{address}/v1/evidence", content=body, headers=headers).status_code] += 1
            up = client.get(f"{address}/health").status_code
        taken = [entry.content.id for entry in center.entries(path) if isinstance(entry.content, Evidence)]
    took_s = time.perf_counter() - began
    bad = len(taken) - good
    print(f"{arguments.number} malformed and forged reports, seed {arguments.seed}: answers {dict(answers)}")
    print(f"{good} good ones in between: all taken; the service answers {up} afterwards")
    results = [
        measured(f"taken of {arguments.number:,} malformed and forged reports", "", [bad], aim="ours <= 0"),
        measured("refused a second", "reports/s", [arguments.number / took_s]),
    ]
    report(__file__, results)


def good_report(ident: str) -> bytes:
    """Return a good report."""
    return json.dumps({"evidence": [fleet_service.xid(ident, "n7", kind="check", code="dns", status="pass")]}).encode()


def spoiled(chance: random.Random, tokens: dict[str, str], number: int) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of a report that must not be taken."""
    body, token = good_report(f"bad{number}"), tokens["reporter"]
    if chance.random() < 0.5:  # noqa: PLR2004 - half are forged, half malformed
        token = forged(chance, tokens)
    else:
        body = malformed(chance, body)
    return ({"Authorization": f"Bearer {token}"} if token else {}), body


def forged(chance: random.Random, tokens: dict[str, str]) -> str:
    """Return a token that opens nothing here."""
    real = tokens["reporter"]
    place = chance.randrange(len("piolet_"), len(real))
    other = chance.choice([letter for letter in "abcXYZ019_-" if letter != real[place]])
    return chance.choice(
        [
            "",
            "piolet_" + chance.randbytes(24).hex(),
            real[:place] + other + real[place + 1 :],
            real[:place],
            real + other,
            tokens["reader"],
            tokens["operator"],
            tokens["n1"],  # which does not speak for n7
            "eyJhbGciOiJub25lIn0.eyJzdW4iOiJyb290IiwiZXhwIjo5OTk5OTk5OTk5fQ.",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdW4iOiJyb290In0." + chance.randbytes(32).hex(),
        ]
    )


def malformed(chance: random.Random, body: bytes) -> bytes:
    """Return `body` spoiled so that nothing in it can be meant."""
    values = json.loads(body)
    item = values["evidence"][0]
    key = chance.choice(["id", "time_ns", "kind", "code", "node", "status"])
    place = chance.randrange(1, len(body) - 1)
    item[key] = chance.choice([None, [], {}, -1, 1e400, "", "\0", "x" * 10_000, True, {"a": [[]]}, "../etc", "n7 "])
    return chance.choice(
        [
            body[:place],
            body[:place] + b"\xff\x00{" + body[place:],
            body * 2,
            b"[" * chance.randrange(1, 100_000),
            chance.randbytes(chance.randrange(0, 500)),
            json.dumps(values).encode(),
            json.dumps({"evidence": [item | {"source": "slurm"}]}).encode(),
            json.dumps({"evidence": "all"}).encode(),
        ]
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
