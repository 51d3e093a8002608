"""The walk of `piolet data check` against `find -printf` of the same values, on a tree of empty files made for it.

    python bench/data_check.py [--files 1000000] [--rounds 15] [--tree DIRECTORY]

The tree is warm in the kernel's cache for both.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

from common import in_turns, measured, report, seconds, version

PRINTED = "%s %b %A@ %T@ %n %m %p\n"
A_DIRECTORY = 1000


def make(root: Path, files: int) -> None:
    """Make a tree of `files` empty files, a thousand a directory."""
    for directory in range(files // A_DIRECTORY):
        path = root / f"{directory // 100:03d}" / f"{directory:05d}"
        path.mkdir(parents=True, exist_ok=True)
        for number in range(A_DIRECTORY):
            os.close(os.open(path / f"sample{number:04d}.jpg", os.O_CREAT | os.O_WRONLY))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tree", type=Path, help="use this tree instead of making one")
    options = parser.parse_args()
    tree = options.tree or Path(tempfile.mkdtemp(prefix="piolet-bench-", dir="/var/tmp"))
    try:
        if not options.tree:
            make(tree, options.files)
        compare(tree, options)
    finally:
        if not options.tree:
            shutil.rmtree(tree)


def compare(tree: Path, options: argparse.Namespace) -> None:
    """Report the times of both, and the largest memory of a process of the walk."""
    find = ["find", str(tree), "-printf", PRINTED]
    piolet = [sys.executable, "-m", "piolet", "data", "check", str(tree), "--format", "json"]
    times = in_turns(options.rounds, {"piolet": lambda: seconds(piolet, ok=(0, 1)), "find": lambda: seconds(find)})
    largest_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    what = f"walk of {options.tree or f'{options.files:,} files'}"
    report(
        __file__,
        [
            measured(what, "s", times["piolet"], times["find"], peer="find -printf", aim="ratio <= 1.5"),
            measured("largest process of the walk", "MB", [largest_mb]),
        ],
        find=version("find", "--version"),
    )


if __name__ == "__main__":
    main()
