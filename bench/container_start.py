"""What a container costs at the start of a step, beside the same step without one.

    python bench/container_start.py [--runs 20]

On a lab of 2 nodes: `srun -N2 -n4 true` bare, with a compiled plan, and with an EDF that srun has compiled. On this
machine alone: a busybox image (zstd squashfs, and as a directory) entered by piolet-enter, and the peer, bubblewrap on
the same image: as a directory, and mounted by squashfuse for the occasion. Needs root and Slurm.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from common import Result, in_turns, measured, report, seconds, version

from piolet.core.native import native
from piolet.lab import Spec, up

Commands = Mapping[str, list[str]]


def main() -> None:
    """Measure and report."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="piolet-bench-", dir="/var/tmp") as directory:
        place = Path(directory)
        place.chmod(0o755)
        image = make_image(place)
        local = measure_local(place, image, arguments.runs)
        steps = measure_steps(place, image, arguments.runs)
    step = "srun -N2 -n4 true"
    bare = steps.pop("bare")
    results = [measured(f"{step}, {name}", "s", times, bare, peer="bare srun", aim="ratio <= 1.03")
               for name, times in steps.items()]  # fmt: skip
    absent = []
    for kind, mount in (("directory", "directory"), ("squashfs", "squashfuse")):
        ours, theirs = local[f"piolet-enter, {kind}"], local.get(f"bubblewrap, {mount}", [])
        results.append(start_of(kind, ours, theirs))
    if not shutil.which("bwrap"):
        absent.append("bubblewrap: apt-get install bubblewrap")
    slurm, bwrap = version("slurmctld", "-V"), version("bwrap", "--version")
    report(__file__, results, absent=absent, slurm=slurm, bubblewrap=bwrap)


def start_of(kind: str, ours: list[float], theirs: list[float]) -> Result:
    """Return the result of a start on this machine, beside bubblewrap if it is there."""
    if not theirs:
        return measured(f"one start of piolet-enter, {kind}", "s", ours)
    return measured(f"one start of piolet-enter, {kind}", "s", ours, theirs, peer="bubblewrap", aim="ratio <= 1")


def make_image(place: Path) -> Path:
    """Make a squashfs image of busybox and an EDF beside it."""
    tree, image = place / "tree", place / "image.sqsh"
    (tree / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    (tree / "bin/true").symlink_to("busybox")
    for name in ("proc", "dev", "sys", "tmp"):
        (tree / name).mkdir()
    subprocess.run(
        ["mksquashfs", tree, image, "-comp", "zstd", "-quiet", "-no-progress"], check=True, capture_output=True
    )
    (place / "bench.toml").write_text(f'image = "{image}"\n')
    return image


def measure_steps(place: Path, image: Path, runs: int) -> dict[str, list[float]]:
    """Return the seconds of each kind of step."""
    lab = up(Spec(name="bench-container", nodes=2))
    try:
        environment = os.environ | lab.environment()
        plan = compiled(place / "bench.toml", environment)
        step = ["srun", "-N2", "-n4"]
        commands = {
            "bare": [*step, "/bin/true"],
            "with a plan": [*step, f"--environment={plan}", "/bin/true"],
            "with an EDF": [*step, f"--environment={image.parent}/bench.toml", "/bin/true"],
        }
        return take_turns(commands, runs, environment | {"PIOLET_ROOT": str(place)})
    finally:
        lab.down()


def measure_local(place: Path, image: Path, runs: int) -> dict[str, list[float]]:
    """Return the seconds of one start on this machine, by launcher."""
    enter = str(native("piolet-enter"))
    directory = place / "directory.toml"
    directory.write_text(f'image = "{place}/tree"\n')
    commands = {
        "bare exec": ["/bin/true"],
        "piolet-enter, directory": [enter, str(compiled(directory, os.environ)), "--", "/bin/true"],
        "piolet-enter, squashfs": [enter, str(compiled(place / "bench.toml", os.environ)), "--", "/bin/true"],
    }
    if shutil.which("bwrap"):
        mounted = place / "mounted"
        mounted.mkdir()
        once = f"squashfuse {image} {mounted} && {shlex.join(bubblewrap(mounted))}; umount {mounted}"
        commands["bubblewrap, directory"] = bubblewrap(place / "tree")
        commands["bubblewrap, squashfuse"] = ["sh", "-c", once]
    return take_turns(commands, runs, os.environ)


def bubblewrap(root: Path) -> list[str]:
    """Return the command that starts `true` in `root` with what piolet-enter gives: /dev, /proc, /sys and /tmp."""
    return [
        *("bwrap", "--unshare-user", "--ro-bind", str(root), "/", "--dev-bind", "/dev", "/dev"),
        *("--ro-bind", "/proc", "/proc", "--ro-bind", "/sys", "/sys", "--tmpfs", "/tmp", "/bin/true"),  # noqa: S108 - in the container
    ]


def compiled(edf: Path, environment: Mapping[str, str]) -> Path:
    """Return the plan of an EDF."""
    argv = [sys.executable, "-m", "piolet", "env", "compile", str(edf)]
    environment = dict(environment) | {"PIOLET_ROOT": str(edf.parent)}
    done = subprocess.run(argv, check=True, capture_output=True, env=environment, text=True)
    return Path(done.stdout.strip())


def take_turns(commands: Commands, runs: int, environment: Mapping[str, str]) -> dict[str, list[float]]:
    """Return the seconds of `runs` runs of each command."""
    return in_turns(runs, {name: lambda argv=argv: seconds(argv, env=environment) for name, argv in commands.items()})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    return parser.parse_args()


if __name__ == "__main__":
    main()
