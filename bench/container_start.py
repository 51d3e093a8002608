"""What a container costs at the start of a step, beside the same step without one; and beside other launchers.

    python bench/container_start.py [--runs 20] [--image-mb 0]

On a lab of 2 nodes: `srun -N2 -n4` of busybox's `true`, and of a program of three instructions, in a directory, in an
image that the kernel mounts, in one that squashfuse serves, and with that one's EDF; and 64 tasks on one node. On this
machine alone: the image (zstd squashfs, and as a directory) entered by piolet-enter, and by bubblewrap, ch-run and
podman. `--image-mb` puts that much noise into the image. Needs root and Slurm.
"""

from __future__ import annotations

import argparse
import hashlib
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
from piolet.env import trusting
from piolet.lab import Spec, up

Commands = Mapping[str, list[str]]

PEERS = {"bwrap": "bubblewrap", "ch-run": "charliecloud", "podman": "podman crun"}
STEPS = {
    "srun -N2 -n4 true": ["-N2", "-n4"],
    "srun -N2 -n4 nothing": ["-N2", "-n4"],
    "srun -N1 -n64 true": ["-N1", "-n64", "--overcommit"],
}


def main() -> None:
    """Measure and report."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="piolet-bench-", dir="/var/tmp") as directory:
        place = Path(directory)
        place.chmod(0o755)
        image = make_image(place, arguments.image_mb)
        results = [*measure_local(place, image, arguments.runs), *measure_steps(place, image, arguments.runs)]
    absent = [f"{name}: apt-get install {package}" for name, package in PEERS.items() if not shutil.which(name)]
    versions = {name: version(name, "--version") for name in PEERS if shutil.which(name)}
    report(__file__, results, absent=absent, slurm=version("slurmctld", "-V"), **versions)


def make_image(place: Path, noise_mb: int) -> Path:
    """Make a squashfs image of busybox, a directory of the same, and an EDF of each."""
    tree, image = place / "tree", place / "image.sqsh"
    (tree / "bin").mkdir(parents=True)
    (place / "nothing.c").write_text(
        'void _start(void) { __asm__ volatile("xor %edi, %edi; mov $60, %eax; syscall"); }'
    )
    argv = ["gcc", "-static", "-nostdlib", "-O2", "-o", tree / "bin/nothing", place / "nothing.c"]
    subprocess.run(argv, check=True)
    with (tree / "noise").open("wb") as noise:
        for _ in range(noise_mb):
            noise.write(os.urandom(1_000_000))
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    (tree / "bin/true").symlink_to("busybox")
    for name in ("proc", "dev", "sys", "tmp", "etc", "home", "root", "run", "mnt"):
        (tree / name).mkdir()
    for name in ("passwd", "group", "hosts", "resolv.conf"):
        (tree / "etc" / name).touch()
    subprocess.run(
        ["mksquashfs", tree, image, "-comp", "zstd", "-quiet", "-no-progress"], check=True, capture_output=True
    )
    (place / "bench.toml").write_text(f'image = "{image}"\nmounts = ["{place}"]\n')
    (place / "directory.toml").write_text(f'image = "{tree}"\nmounts = ["{place}"]\n')
    return image


def measure_steps(place: Path, image: Path, runs: int) -> list[Result]:
    """Return how long steps take in each kind of container, beside bare ones."""
    lab = up(Spec(name="bench-container", nodes=2))
    try:
        environment = os.environ | lab.environment() | {"PIOLET_ROOT": str(place)}
        kinds = {
            "a directory": compiled(place / "directory.toml", environment),
            "the site's image (kernel)": compiled(site_edf(place, image, lab.directory), environment),
            "a user's image (squashfuse)": compiled(place / "bench.toml", environment),
            "the same by its EDF": place / "bench.toml",
        }
        flags = {"bare": [], **{name: [f"--environment={path}"] for name, path in kinds.items()}}
        results = []
        for step, words in STEPS.items():
            program = str(place / "tree/bin/nothing") if step.endswith("nothing") else "/bin/true"
            commands = {name: ["srun", "-Q", *words, *more, program] for name, more in flags.items()}
            times = take_turns(commands, runs, environment)
            results += against(times, "bare", step, "bare srun", "ratio <= 1.03" if "-N2" in step else "")
        return results
    finally:
        lab.down()


def site_edf(place: Path, image: Path, lab: Path) -> Path:
    """Put the image where the kernel may mount it, and return an EDF of it."""
    (lab / "images").mkdir(mode=0o755, exist_ok=True)
    trusted = lab / "images/image.sqsh"
    shutil.copy(image, trusted)
    with trusted.open("rb") as content:
        trusting.trust(trusted, hashlib.file_digest(content, "sha256").hexdigest())
    (place / "site.toml").write_text(f'image = "{trusted}"\nmounts = ["{place}"]\n')
    return place / "site.toml"


def measure_local(place: Path, image: Path, runs: int) -> list[Result]:
    """Return how long one start takes on this machine, beside each peer's of the same image."""
    enter, tree, mounted = str(native("piolet-enter")), place / "tree", place / "mounted"
    mounted.mkdir()
    once = f"squashfuse {image} {mounted} && {shlex.join(bubblewrap(mounted))}; umount {mounted}"
    commands = {
        "a directory": [enter, str(compiled(place / "directory.toml", os.environ)), "--", "/bin/true"],
        "squashfs": [enter, str(compiled(place / "bench.toml", os.environ)), "--", "/bin/true"],
        "bwrap": bubblewrap(tree),
        "ch-run": ["ch-run", str(tree), "--", "/bin/true"],
        "podman": podman(tree),
        "bwrap over squashfuse": ["sh", "-c", once],
    }
    there = {name: argv for name, argv in commands.items() if shutil.which(name.split()[0]) or name not in PEERS}
    times = take_turns(there, runs, {"USER": "root"} | os.environ)
    squashfs, peers = times.pop("squashfs"), dict(times)
    found = [measured("one start, squashfs", "s", squashfs, peers.pop("bwrap over squashfuse"),
                      peer="bwrap over squashfuse", aim="ratio <= 1")]  # fmt: skip
    ours = peers.pop("a directory")
    aims = {"podman": "ratio <= 0.0333"}
    return found + [measured("one start, a directory", "s", ours, theirs, peer=name, aim=aims.get(name, "ratio <= 1"))
                    for name, theirs in peers.items()]  # fmt: skip


def against(times: Mapping[str, list[float]], base: str, step: str, peer: str, aim: str) -> list[Result]:
    """Return each of `times` but the base's as a result beside it."""
    return [
        measured(f"{step}, {name}", "s", own, times[base], peer=peer, aim=aim)
        for name, own in times.items()
        if name != base
    ]


def bubblewrap(root: Path) -> list[str]:
    """Return the command that starts `true` in `root` with what piolet-enter gives: /dev, /proc, /sys and /tmp."""
    return [
        *("bwrap", "--unshare-user", "--ro-bind", str(root), "/", "--dev-bind", "/dev", "/dev"),
        *("--ro-bind", "/proc", "/proc", "--ro-bind", "/sys", "/sys", "--tmpfs", "/tmp", "/bin/true"),  # noqa: S108 - in the container
    ]


def podman(root: Path) -> list[str]:
    """Return the command that starts `true` in `root` with podman; crun takes no hybrid cgroups, so they are hidden."""
    limits = ["--ulimit=nofile=1024:20000", "--ulimit=nproc=4096:4096"]
    argv = [
        "podman",
        "run",
        "--rm",
        "--network=none",
        "--cgroups=disabled",
        *limits,
        "--rootfs",
        str(root),
        "/bin/true",
    ]
    hybrid = Path("/sys/fs/cgroup/unified")
    hide = ["unshare", "--mount", "sh", "-c", f'umount {hybrid}; exec "$0" "$@"']
    return [*hide, *argv] if hybrid.exists() else argv


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
    parser.add_argument("--image-mb", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
