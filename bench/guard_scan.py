"""Throughput of `piolet guard` on logs, scripts and images, beside detect-secrets and what reading alone costs.

    python bench/guard_scan.py [--rounds 15]

The log is that of a training run: every fiftieth line has an address or a name that secrets are given to, some have a
secret; detect-secrets sees its beginning, since it takes seconds for a megabyte. The image has one gzip layer with
packages of this Python and the host's database of dpkg; its peer is Python's tarfile, which reads every member and
looks at nothing. trivy and grype are in none of the registries of Python, Debian and npm, so no scanner is beside it.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
from common import Result, in_turns, measured, peer, peer_help, report, timed
from leaking import SCRIPT, SECRETS
from oci_images import layout

from piolet.guard.image.scan import scan_image
from piolet.guard.policy import ImageLimits
from piolet.guard.texts import scan_logs, scan_scripts

LOG_LINES, BEGINNING_LINES = 80_000, 4_000
SCRIPTS = 400
LARGEST_PACKAGE, IMAGE_BYTES = 30 << 20, 120 << 20
PEER = """
import sys, time
from detect_secrets import SecretsCollection
from detect_secrets.settings import default_settings
began = time.perf_counter()
with default_settings():
    found = SecretsCollection()
    for name in sys.stdin.read().splitlines():
        found.scan_file(name)
print(time.perf_counter() - began)
"""


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        results = texts(made, options.rounds) + images(written_image(made / "image"), options.rounds)
    absent = [] if peer("detect-secrets") else [peer_help("detect-secrets")]
    report(__file__, results, absent=absent)


def texts(made: Path, rounds: int) -> list[Result]:
    """Measure logs and scripts."""
    log, beginning = written_log(made / "run.log", LOG_LINES), written_log(made / "begin.log", BEGINNING_LINES)
    scripts = sorted(written_scripts(made / "scripts").iterdir())
    ways: dict[str, Callable[[], float]] = {
        "log": lambda: rate([log], timed(lambda: scan_logs([log]))),
        "scripts": lambda: rate(scripts, timed(lambda: scan_scripts(scripts))),
    }
    if peer("detect-secrets"):
        ways["log beside"] = lambda: rate([beginning], detect_secrets([beginning]))
        ways["scripts beside"] = lambda: rate(scripts, detect_secrets(scripts))
    rates = in_turns(rounds, ways)
    return [
        measured(
            f"{each}, {size(files):.0f} MB", "MB/s", rates[each], rates.get(f"{each} beside", ()), peer="detect-secrets"
        )
        for each, files in (("log", [log]), ("scripts", scripts))
    ]


def images(image: Path, rounds: int) -> list[Result]:
    """Measure an image."""
    scan, inventory = scan_image(image, ImageLimits())
    ways = {
        "scan": lambda: timed(lambda: scan_image(image, ImageLimits())),
        "read": lambda: timed(lambda: read_members(image)),
    }
    seconds = in_turns(rounds, ways)
    amount, count = scan.size_bytes / 1e6, len(inventory.packages)
    rates = {name: [amount / each for each in taken] for name, taken in seconds.items()}
    what = f"image of {amount:.0f} MB in {scan.files} files"
    return [
        measured(what, "MB/s", rates["scan"], rates["read"], peer="tarfile, reading alone"),
        measured(f"{what}, {count} packages", "packages/s", [count / each for each in seconds["scan"]]),
    ]


def rate(files: Iterable[Path], seconds: float) -> float:
    """Return MB/s."""
    return size(files) / seconds


def size(files: Iterable[Path]) -> float:
    """Return the MB of some files."""
    return sum(each.stat().st_size for each in files) / 1e6


def detect_secrets(files: Sequence[Path]) -> float:
    """Return the seconds that detect-secrets takes for the files, without its start."""
    python = f"{peer('detect-secrets')}/bin/python"
    listed = "\n".join(map(str, files))
    done = subprocess.run([python, "-c", PEER], check=True, capture_output=True, input=listed, text=True)
    return float(done.stdout)


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
        for each in sorted(Path(sysconfig.get_path("purelib")).iterdir()):
            amount = sum(path.stat().st_size for path in (each, *each.rglob("*")) if path.is_file())
            if amount < LARGEST_PACKAGE and layer.offset + amount < IMAGE_BYTES:
                layer.add(each, f"usr/lib/python3/dist-packages/{each.name}")
    return layout(directory, [tar.read_bytes()], machines=("amd64",))


def read_members(image: Path) -> None:
    """Read every member of the image's layer."""
    layer = max((image / "blobs/sha256").iterdir(), key=lambda blob: blob.stat().st_size)
    with tarfile.open(layer, "r|gz") as members:
        for member in members:
            if content := members.extractfile(member):
                content.read()


if __name__ == "__main__":
    main()
