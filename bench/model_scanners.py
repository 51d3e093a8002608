"""Detection and false alarms of `piolet guard model` beside picklescan and modelscan, on the corpus of the tests.

    python bench/model_scanners.py --peers PYTHON [--torch PYTHON] [--json FILE]

PYTHON of --peers is an environment with picklescan and modelscan, that of --torch one with torch, which writes its own
benign files. Every scanner sees each file by itself, in one process of its own; the time is that of all files, without
start-up. A file that a scanner says nothing about, or cannot read, is not detected. The corpus was written for Piolet,
so it favours Piolet; those with a pickle are counted apart, since picklescan does not claim to read others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
import model_corpus

RUNS = 5
OTHERS = (".safetensors", ".gguf", ".onnx", ".keras", ".h5", ".pb", ".json", ".md")
SCANNERS = {
    "piolet": """
from piolet.guard.models import scan_model
from piolet.guard.policy import Policy
policy = Policy()
def flagged(path): return any(policy.level(each.rule) == "fail" for each in scan_model(path, policy.model).risks)
""",
    "picklescan": """
from picklescan.scanner import scan_file_path
def flagged(path): return scan_file_path(str(path)).issues_count > 0
""",
    "modelscan": """
from modelscan.modelscan import ModelScan
def flagged(path):
    scanner = ModelScan(); scanner.scan(path); return len(scanner.issues.all_issues) > 0
""",
}
DRIVER = """
import contextlib, io, json, logging, sys, time
from pathlib import Path
logging.disable(logging.CRITICAL)
files = [Path(line) for line in sys.stdin.read().splitlines()]
flags, began = [], time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    for path in files:
        try: flags.append(bool(flagged(path)))
        except Exception: flags.append(False)
print(json.dumps([time.perf_counter() - began, flags]))
"""


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    options = arguments()
    with tempfile.TemporaryDirectory() as directory:
        bad, good = model_corpus.write(Path(directory))
        if options.torch:
            real = Path(directory, "real")
            script = Path(model_corpus.__file__).with_name("real_models.py")
            subprocess.run([options.torch, "-W", "ignore", script, real], check=True)
            good += sorted(real.iterdir())
        found = {
            name: measured(sys.executable if name == "piolet" else options.peers, code, bad, good)
            for name, code in SCANNERS.items()
        }
    print(f"{os.cpu_count()} cpus · kernel {platform.release()} · python {platform.python_version()} · n {RUNS}")
    print(f"{len(bad)} malicious files, {len(good)} benign")
    print(f"{'scanner':<12} {'found':>7} {'of pickles':>11} {'alarms':>7} {'median s':>9} {'min-max':>12}")
    for name, row in found.items():
        median_s = statistics.median(row["seconds"])
        spread = f"{min(row['seconds']):.2f}-{max(row['seconds']):.2f}"
        pickles = f"{row['pickles_found']}/{row['pickles']}"
        total = f"{row['found']}/{len(bad)}"
        print(f"{name:<12} {total:>7} {pickles:>11} {row['alarms']:>7} {median_s:>9.2f} {spread:>12}")
        print(f"  missed: {', '.join(row['missed']) or 'none'}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def measured(python: str, code: str, bad: list[Path], good: list[Path]) -> dict[str, object]:
    """Return what one scanner found and the seconds of each run."""
    files = "\n".join(map(str, [*bad, *good]))
    answers = []
    for _ in range(RUNS):
        done = subprocess.run([python, "-c", code + DRIVER], check=True, capture_output=True, input=files, text=True)
        answers.append(json.loads(done.stdout.splitlines()[-1]))
    flags = answers[0][1]
    pickles = [flag for path, flag in zip(bad, flags, strict=False) if path.suffix not in OTHERS]
    return {
        "found": sum(flags[: len(bad)]),
        "pickles": len(pickles),
        "pickles_found": sum(pickles),
        "alarms": sum(flags[len(bad) :]),
        "missed": [path.name for path, flag in zip(bad, flags, strict=False) if not flag],
        "seconds": [round(seconds, 3) for seconds, _ in answers],
    }


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, help="python of an environment with picklescan and modelscan")
    parser.add_argument("--torch", help="python of an environment with torch")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
