"""Detection and false alarms of `piolet guard model` beside picklescan and modelscan, on the corpus of the tests.

    python bench/model_scanners.py [--torch PYTHON]

PYTHON is that of an environment with torch, which writes its own benign files. Every scanner sees each file by itself,
in one process of its own; the time is that of all files, without start-up. A file that a scanner says nothing about, or
cannot read, is not detected. The corpus was written for Piolet, so it favours Piolet; those with a pickle are counted
apart, since picklescan does not claim to read others.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
import model_corpus
from common import CHECKOUT, Result, measured, peer, peer_help, report

RUNS = 15
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
    """Measure and report."""
    options = arguments()
    scanners = peer("scanners")
    pythons = {"piolet": sys.executable}
    if scanners:
        pythons |= dict.fromkeys(("picklescan", "modelscan"), str(scanners / "bin/python"))
    with tempfile.TemporaryDirectory() as directory:
        bad, good = model_corpus.write(Path(directory))
        if options.torch.exists():
            real = Path(directory, "real")
            script = Path(model_corpus.__file__).with_name("real_models.py")
            subprocess.run([options.torch, "-W", "ignore", script, real], check=True)
            good += sorted(real.iterdir())
        found = {name: scanned(python, SCANNERS[name], bad, good) for name, python in pythons.items()}
    for name, row in found.items():
        print(f"{name} missed: {', '.join(row['missed']) or 'none'}")
    absent = [] if scanners else [peer_help("scanners", "picklescan", "modelscan")]
    if not options.torch.exists():
        absent.append(f"torch is absent, whose files are benign: {options.torch}")
    report(__file__, list(results(found, len(bad), len(good))), absent=absent)


def results(found: dict[str, dict[str, object]], bad: int, good: int) -> Iterator[Result]:
    """Yield what piolet found, beside each peer."""
    ours = found["piolet"]
    for name in [name for name in found if name != "piolet"] or [""]:
        theirs = found.get(name, {})
        counted = {
            "found": f"found of {bad} malicious files",
            "pickles_found": f"found of those {ours['pickles']} with a pickle",
            "alarms": f"alarms on {good} benign files",
        }
        for key, what in counted.items():
            yield measured(what, "", [ours[key]], [theirs[key]] if theirs else [], peer=name)
        yield measured("scan of all", "s", ours["seconds"], theirs.get("seconds", []), peer=name)


def scanned(python: str, code: str, bad: list[Path], good: list[Path]) -> dict[str, object]:
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
    parser.add_argument("--torch", type=Path, default=CHECKOUT / ".venv-torch/bin/python")
    return parser.parse_args()


if __name__ == "__main__":
    main()
