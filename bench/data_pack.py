"""`piolet data pack` against bare mksquashfs with the same options, and its shards against tar, on many files.

    python bench/data_pack.py [DIRECTORY] [--rounds 15]

Without DIRECTORY it packs the packages of this Python. All write beside each other in /var/tmp, from the kernel's
cache. Two peers: mksquashfs alone, which leaves the image in memory, and mksquashfs and `sync` of the image, since
`pack` has it on the disk when it ends. That of shards is tar and `sync`, which hashes nothing.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from common import in_turns, measured, report, seconds, version

from piolet.tools.squashfs import make_argv


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?", default=Path(sysconfig.get_path("purelib")))
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="piolet-bench-") as work:
        image, shards = Path(work) / "image.sqsh", Path(work) / "shards"
        piolet = [sys.executable, "-m", "piolet", "data", "pack", str(options.directory)]
        bare = make_argv(options.directory, image)
        programs = {
            "bare": bare,
            "synced": ["sh", "-c", f"{shlex.join(bare)} && sync {image}"],
            "piolet": [*piolet, str(image)],
            "tar": ["sh", "-c", f"tar -cf {image} -C {shlex.quote(str(options.directory))} . && sync {image}"],
            "shards": [*piolet, str(shards), "--shards"],
        }

        def packed(name: str) -> float:
            image.unlink(missing_ok=True)
            shutil.rmtree(shards, ignore_errors=True)
            return seconds(programs[name])

        times = in_turns(options.rounds, {name: lambda name=name: packed(name) for name in programs})
    sizes = [path.stat().st_size for path in options.directory.rglob("*") if path.is_file()]
    what = f"{sum(sizes) / 1e6:,.0f} MB in {len(sizes):,} files"
    image_of, shards_of = f"image of {what}", f"shards of {what}"
    report(
        __file__,
        [
            measured(image_of, "s", times["piolet"], times["bare"], peer="mksquashfs", aim="ratio <= 1.1"),
            measured(image_of, "s", times["piolet"], times["synced"], peer="mksquashfs and sync"),
            measured(shards_of, "s", times["shards"], times["tar"], peer="tar and sync"),
        ],
        mksquashfs=version("mksquashfs", "-version"),
    )


if __name__ == "__main__":
    main()
