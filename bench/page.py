"""The page of all figures, docs/reference/performance.md, from the files that the measurements leave in build/bench."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common import RESULTS, Result, Spread

ABOUT = """# Performance

`make bench` runs every measurement of `bench/` and writes this page; `make bench ONLY="data_check vet_scale"` runs two,
and keeps what this checkout has measured of the others in `build/bench`. Each figure is a median with its quartiles. A
ratio is Piolet's figure through the peer's: both were measured in turns in the same run, pair by pair, and it is the
median of the pairs with its quartiles. An aim is of the median. `load` is that of the machine when a script ended: what
else ran there is in the figures. What a script does stands at its top.
"""
HEAD = "| Measured | Piolet | Peer | Ratio | n | Aim |\n|---|---|---|---|---|---|"
CURVES = """
## How it grows

`bench/growth.py` makes each size afresh. The exponent is the slope of a line through all points on logarithmic axes,
and the last one that between the two largest sizes: 1 is proportional, 0 does not depend on the size.

![Seconds over size, both logarithmic](../images/growth.svg)

| What | Over | Seconds at each size | Exponent | At the end | Bends |
|---|---|---|---|---|---|
"""


def write_page(path: Path, known: Sequence[str]) -> None:
    """Write the page; scripts of `known` that left no figures are named on it."""
    files = [RESULTS / f"{name}.json" for name in known]
    reports = [json.loads(file.read_text()) | {"day": _day(file)} for file in files if file.exists()]
    parts = [
        ABOUT,
        *_machines(reports),
        HEAD,
        *(line for each in reports if each["name"] != "growth" for line in _rows(each)),
    ]
    without = [name for name, file in zip(known, files, strict=True) if not file.exists()]
    absent = [line for each in reports for line in each["absent"]]
    if without:
        parts.append(f"\nNot run for this page (earlier figures stand in this reference):\n{', '.join(without)}.")
    if absent:
        parts.append("\nNot measured, because a peer was absent:\n\n" + "\n".join(f"- {line}" for line in absent))
    curves = RESULTS / "curves.json"
    if curves.exists():
        parts.append(CURVES + "\n".join(_curve(each) for each in json.loads(curves.read_text())))
    path.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _day(file: Path) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(file.stat().st_mtime))


def _machines(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Say once what all share, and of which scripts it is true if there are several machines."""
    scripts = defaultdict(list)
    for each in reports:
        scripts[" · ".join(f"{key} {value}" for key, value in each["machine"].items())].append(each["name"])
    for machine, names in scripts.items():
        yield f"Machine: {machine}" + (f" ({', '.join(names)})" if len(scripts) > 1 else "") + ".\n"


def _rows(report: dict[str, Any]) -> Iterator[str]:
    versions = " · ".join([*report["versions"].values(), f"load {report['load']}", report["day"]])
    yield f"| **{report['name']}** | {versions} | | | | |"
    for fields in report["results"]:
        spreads = {key: Spread(**fields[key]) for key in ("ours", "theirs", "ratio") if fields[key]}
        each = Result(**(fields | spreads))
        kept = {None: "", True: f"{each.aim}: kept", False: f"{each.aim}: **not kept**"}[each.kept]
        peer = f"{each.peer} {each.theirs}" if each.theirs else each.peer
        yield f"| {each.name} | {each.ours} {each.unit} | {peer} | {each.ratio or ''} | {each.ours.n} | {kept} |"


def _curve(curve: dict[str, Any]) -> str:
    points = ", ".join(f"{size}: {taken}" for size, taken in curve["points"])
    return (
        f"| {curve['what']} | {curve['over']} | {points} | {curve['exponent']} | {curve['last']} | {curve['bends']} |"
    )
