"""Throughput of `piolet guard` on logs, scripts and images, each beside what the same bytes cost without it.

    python bench/guard_scan.py [--peers PYTHON] [--rounds 15] [--json FILE]

PYTHON of --peers is an environment with detect-secrets, which looks for secrets in texts too; of a log it sees 1 MB,
since it takes seconds for that. The log is that of a training run: every fiftieth line has an address or a name that
secrets are given to, seven have a secret. The image has one gzip layer with the packages of this environment and the
host's database of dpkg; its floor is Python's tarfile reading every member and looking at nothing. trivy and grype
answer other questions of an image (vulnerabilities alone) and are in none of the registries of Python, Debian and npm,
so the image has no peer beside it. Rounds alternate; the machine's other load meets all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
from leaking import SCRIPT, SECRETS
from oci_images import layout

from piolet.guard.image.scan import scan_image
from piolet.guard.policy import ImageLimits
from piolet.guard.texts import scan_logs, scan_scripts

LOG_LINES = 80_000
PEER_LINES = 6_000
SCRIPTS = 400
LARGEST_PACKAGE, IMAGE_BYTES = 30 << 20, 120 << 20
PEER = """
import sys, time
from pathlib import Path
from detect_secrets import SecretsCollection
from detect_secrets.settings import default_settings
began = time.perf_counter()
with default_settings():
    found = SecretsCollection()
    for name in sys.stdin.read().splitlines():
        found.scan_file(name)
print(time.perf_counter() - began, sum(len(each) for each in found.data.values()))
"""


def main() -> None:
    """Measure, print a table, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", help="python of an environment with detect-secrets")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        log, short = written_log(made / "run.log", LOG_LINES), written_log(made / "short.log", PEER_LINES)
        scripts = written_scripts(made / "scripts")
        image = written_image(made / "image")
        work: dict[str, tuple[Callable[[], object], int]] = {
            "piolet log": (lambda: scan_logs([log]), log.stat().st_size),
            "read log": (log.read_text, log.stat().st_size),
            "piolet scripts": (lambda: scan_scripts([scripts]), size_of(scripts)),
            "piolet image": (lambda: scan_image(image, ImageLimits()), unpacked(image)),
            "read image": (lambda: unpacked(image), unpacked(image)),
        }
        if options.peers:
            work["detect-secrets log"] = (lambda: peer(options.peers, [short]), short.stat().st_size)
            work["detect-secrets scripts"] = (lambda: peer(options.peers, scripts.iterdir()), size_of(scripts))
        seconds = measured(work, options.rounds)
        packages = len(scan_image(image, ImageLimits())[1].packages)
    print(
        f"{os.cpu_count()} cpus · kernel {platform.release()} · python {platform.python_version()} · n {options.rounds}"
    )
    for each, taken in seconds.items():
        rates = sorted(work[each][1] / 1e6 / value for value in taken)
        low, median, high = statistics.quantiles(rates, n=4)
        said = f", {packages / statistics.median(taken):.0f} packages/s" if each == "piolet image" else ""
        print(f"{each:<24} {work[each][1] / 1e6:7.1f} MB {median:8.1f} MB/s ({low:.1f}-{high:.1f}){said}")
    if options.json:
        options.json.write_text(json.dumps(seconds, indent=2) + "\n")


def measured(work: dict[str, tuple[Callable[[], object], int]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each in each round; every other round goes backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds):
        for name in sorted(work, reverse=bool(turn % 2)):
            began = time.perf_counter()
            told = work[name][0]()
            taken = time.perf_counter() - began
            seconds[name].append(told if isinstance(told, float) else taken)
    return seconds


def peer(python: str, files: object) -> float:
    """Return the seconds that detect-secrets takes for the files, without its start."""
    listed = "\n".join(map(str, files))  # type: ignore[call-overload]
    done = subprocess.run([python, "-c", PEER], check=True, capture_output=True, input=listed, text=True)
    return float(done.stdout.split()[0])


def written_log(path: Path, lines: int) -> Path:
    """Write the log of a training run."""
    chance = random.Random(7)  # noqa: S311 - the same log each time
    with path.open("w") as log:
        for step in range(lines):
            log.write(
                f"2026-01-07 10:{step // 60 % 60:02}:{step % 60:02} step={step} loss={chance.random():.4f} "
                f"grad_norm={chance.random():.3f} tokens/s={chance.randrange(9000)} mem=71GiB\n"
            )
            if step % 50 == 0:
                log.write("Loading tokenizer from https://huggingface.co/meta/llama key: value\n")
            if step % (lines // len(SECRETS)) == 1:
                log.write(f"+ export TOKEN={SECRETS[step * len(SECRETS) // lines]}\n")
    return path


def written_scripts(directory: Path) -> Path:
    """Write job scripts, one in a hundred of which leaks."""
    directory.mkdir()
    plain = "#!/bin/bash\n#SBATCH --nodes=4\n" + "module load cuda\nsrun python train.py --lr 3e-4 --data $DATA\n" * 40
    for number in range(SCRIPTS):
        (directory / f"job{number}.sh").write_text(plain + (SCRIPT if number % 100 == 0 else ""))
    return directory


def written_image(directory: Path) -> Path:
    """Write an OCI image of this environment's packages and the host's database of dpkg."""
    tar = directory.with_suffix(".tar")
    with tarfile.open(tar, "w") as layer:
        for path in ("/etc/os-release", "/var/lib/dpkg/status"):
            layer.add(Path(path).resolve(), path)
        site = next(Path(each) for each in sys.path if each.endswith("site-packages"))
        for each in sorted(site.iterdir()):
            amount = sum(path.stat().st_size for path in each.rglob("*") if path.is_file())
            if amount < LARGEST_PACKAGE and layer.offset + amount < IMAGE_BYTES:
                layer.add(each, f"usr/lib/python3/dist-packages/{each.name}")
    return layout(directory, [tar.read_bytes()], machines=("amd64",))


def unpacked(image: Path) -> int:
    """Read every member of the image's layer, and return the bytes of all."""
    layer = max((image / "blobs/sha256").iterdir(), key=lambda blob: blob.stat().st_size)
    amount = 0
    with tarfile.open(layer, "r|gz") as members:
        for member in members:
            content = members.extractfile(member) if member.isreg() else None
            amount += len(content.read()) if content else 0
    return amount


def size_of(directory: Path) -> int:
    """Return the bytes of the files in a directory."""
    return sum(each.stat().st_size for each in directory.iterdir())


if __name__ == "__main__":
    main()
