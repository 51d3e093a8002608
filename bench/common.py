"""One form for all measurements: what was measured, beside which peer, how often, how it spread, and what was aimed at.

A script of this directory measures Piolet and a peer in turns and ends with one call of `report`, which prints a table
and writes build/bench/NAME.json. `make bench` runs the scripts and makes docs/reference/performance.md of these files:

    times = in_turns(15, {"piolet": lambda: seconds(ours), "find": lambda: seconds(theirs)})
    walk = measured("walk of 1e6 files", "s", times["piolet"], times["find"], peer="find -printf", aim="ratio <= 1.5")
    report(__file__, [walk], find=version("find", "--version"))

A figure without a peer has no ratio; a peer that is a known truth or was counted once is a list of one value. A peer
that is not installed is told with `absent`, never left out.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from piolet import __version__

CHECKOUT = Path(__file__).resolve().parents[1]
RESULTS = CHECKOUT / "build" / "bench"
PEERS = CHECKOUT / "build" / "peers"
THOUSAND = 1000


@dataclass(frozen=True, slots=True)
class Spread:
    """How often something was measured, its median and its quartiles."""

    n: int
    median: float
    q25: float
    q75: float

    def __str__(self) -> str:
        return number(self.median) if self.n == 1 else f"{number(self.median)} ({number(self.q25)}-{number(self.q75)})"


@dataclass(frozen=True, slots=True)
class Result:
    """One figure: ours, the peer's if there is one, the ratio of each pair, and whether the aim is kept."""

    name: str
    unit: str
    ours: Spread
    peer: str = ""
    theirs: Spread | None = None
    ratio: Spread | None = None
    aim: str = ""
    kept: bool | None = None


def measured(
    name: str, unit: str, ours: Sequence[float], theirs: Sequence[float] = (), *, peer: str = "", aim: str = ""
) -> Result:
    """Return a result. The n-th of `ours` and of `theirs` are a pair, and its ratio is ours through theirs.

    The aim is written ``ours <= 70`` or ``ratio <= 1.5`` (or >=), and is of the median.
    """
    if len(theirs) not in (0, 1, len(ours)):
        raise ValueError(f"{name}: {len(ours)} figures beside {len(theirs)}")
    pairs = list(zip(ours, theirs if len(theirs) > 1 else [*theirs] * len(ours), strict=False))
    found = {"ours": spread(ours)}
    if pairs and all(other for _, other in pairs):
        found["ratio"] = spread([one / other for one, other in pairs])
    beside = spread(theirs) if theirs else None
    return Result(name, unit, found["ours"], peer, beside, found.get("ratio"), aim, is_kept(aim, found))


def is_kept(aim: str, found: Mapping[str, Spread]) -> bool | None:
    """Tell whether an aim is kept; None if there is none."""
    if not aim:
        return None
    of, sign, bound = aim.split()
    return found[of].median <= float(bound) if sign == "<=" else found[of].median >= float(bound)


def spread(values: Sequence[float]) -> Spread:
    """Return n, the median and the quartiles of some values; those of one value are the value."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else list(values) * 3
    return Spread(len(values), middle, low, high)


def number(value: float) -> str:
    """Return a figure with three digits that count."""
    if value == 0 or abs(value) >= THOUSAND / 10:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def in_turns(n: int, ways: Mapping[str, Callable[[], float]], *, warm_up: int = 1) -> dict[str, list[float]]:
    """Measure each way `n` times, A B B A, after turns that are not counted."""
    values: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-warm_up, n):
        for name in list(ways) if turn % 2 == 0 else reversed(list(ways)):
            value = ways[name]()
            if turn >= 0:
                values[name].append(value)
    return values


def seconds(argv: Sequence[str | Path], *, ok: Sequence[int] = (0,), env: Mapping[str, str] | None = None) -> float:
    """Run a command without its output and return its seconds of wall clock; exits if it fails."""
    began = time.perf_counter()
    done = subprocess.run(argv, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
    taken = time.perf_counter() - began
    if done.returncode not in ok:
        sys.exit(f"{' '.join(map(str, argv))} ended with {done.returncode}\n{done.stderr.decode(errors='replace')}")
    return taken


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def version(*argv: str) -> str:
    """Return the first line that a program says of its version, or that it is absent."""
    if not shutil.which(argv[0]):
        return "absent"
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    return next(iter((done.stdout or done.stderr).splitlines()), "").strip()


def peer(name: str) -> Path | None:
    """Return the virtual environment of a peer from PyPI if there is one: build/peers/NAME."""
    there = PEERS / name
    return there if (there / "bin" / "python").exists() else None


def peer_help(name: str, *packages: str) -> str:
    """Say how the virtual environment of a peer is made."""
    there = f"build/peers/{name}"
    return f"{name} is absent: python3 -m venv {there} && {there}/bin/pip install {' '.join(packages or (name,))}"


def machine() -> dict[str, str]:
    """Return what all figures depend on."""
    models = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"Linux {platform.release()}",
        "python": platform.python_version(),
        "piolet": __version__,
    }


def report(script: str, results: Iterable[Result], *, absent: Sequence[str] = (), **versions: str) -> None:
    """Print a table of the results and write them to build/bench/NAME.json; `versions` are those of peers and tools."""
    name, found = Path(script).stem, list(results)
    where = {"machine": machine(), "versions": versions, "load": round(os.getloadavg()[0], 1), "absent": list(absent)}
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"name": name, **where, "results": [asdict(each) for each in found]}, indent=2)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(
        " · ".join(f"{key} {value}" for key, value in (where["machine"] | versions).items()), f"· load {where['load']}"
    )
    width = max((len(each.name) for each in found), default=0)
    for each in found:
        print(f"{each.name:{width}}  {' · '.join(cells(each))}")
    print("\n".join(absent))


def cells(result: Result) -> list[str]:
    """Return what is said of a result: ours, the peer's, the ratio, the aim; what there is of these."""
    said = [f"{result.ours} {result.unit}".strip(), f"n {result.ours.n}"]
    if result.theirs:
        said.append(f"{result.peer} {result.theirs}")
    if result.ratio:
        said.append(f"ratio {result.ratio}")
    if result.kept is not None:
        said.append(f"{result.aim}: {'kept' if result.kept else 'NOT KEPT'}")
    return said
