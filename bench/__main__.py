"""All measurements, one after the other: runs the scripts of this directory, then writes the page of their figures.

    python bench [NAME ...]        make bench, make bench ONLY="NAME ..."

A script has a session of its own; when it ends, fails or is interrupted, whatever it started ends with it. The page is
made of all files in build/bench, so a measurement that was made earlier stays on it with its own machine and date.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from common import CHECKOUT, RESULTS
from page import write_page

HERE = Path(__file__).parent
NOT_RUN = {"__main__", "chart", "common", "page", "lab_faults", "lab_program", "noisy_job"}
"""Parts of others."""
LIMIT_S = 3600
STOP_S = 30


def main() -> None:
    """Run what was asked for, or everything, and write the page."""
    known = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NOT_RUN)
    asked = sys.argv[1:] or known
    if unknown := set(asked) - set(known):
        sys.exit(f"no such measurement: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    failed = [name for name in asked if not run(name)]
    write_page(CHECKOUT / "docs" / "reference" / "performance.md", known)
    if failed:
        sys.exit(f"bench: without figures: {', '.join(failed)}")


def run(name: str) -> bool:
    """Run a script and tell whether it ended well and left its figures."""
    figures, began = RESULTS / f"{name}.json", time.time()
    print(f"\n=== {name}", flush=True)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen([sys.executable, HERE / f"{name}.py"], start_new_session=True, env=environment)
    try:
        status = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        status = f"no end after {LIMIT_S} s"
    finally:
        end(process)
    print(f"--- {name}: {status or 'ended'} after {time.time() - began:.0f} s", flush=True)
    return status == 0 and figures.exists() and figures.stat().st_mtime >= began


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a script to end, and then end what is left of its session's group."""
    for signum, wait_s in ((signal.SIGINT, STOP_S), (signal.SIGKILL, STOP_S)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)


if __name__ == "__main__":
    main()
